// Command kvd is the node and the command line in one binary.
//
//	kvd                          serve ./kvd-data at 127.0.0.1:7400, admin at 127.0.0.1:7401
//	kvd put | get | del | scan   the verbs
//	kvd import | export          bulk, to and from directories of files and JSON lines
//	kvd status | checkpoint      look after a node
//	kvd cert ...                 the certificates of a cluster's nodes and clients
//	kvd debug ...                look into the files of one, also when it is down
//	kvd demo                     see it all work, kill -9 included, in some 40 seconds
//
// There is a file per command. What commands share: config.go (flag, environment, file, default),
// dial.go (the way to a node), output.go (-o table, json, raw), exit.go (errors and exit codes),
// progress.go. Data goes to stdout; progress, logs and errors go to stderr.
//
// docs/cli.md is the reference.
package main

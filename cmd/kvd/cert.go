package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvd/netquic"
)

// certCommand makes what the nodes and clients of a cluster know each other by. None of its
// commands needs a node.
func (p *program) certCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make the certificates of a cluster's nodes and clients",
		Long: `A cluster is an authority: a key that signs the certificates of its nodes and
clients. Make one with init, in a directory of its own, and keep ca.key where certificates are made.
A node gets a copy of ca.pem, NAME.pem and NAME.key; a client the same, with its own name.`,
	}
	onlyCommands(cmd)
	cmd.AddCommand(p.certInitCommand(), p.certIssueCommand(netquic.RoleNode),
		p.certIssueCommand(netquic.RoleClient), p.certListCommand())
	return cmd
}

// addTLSFlag is for all that work with a cluster's directory.
func addTLSFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "tls", "", "directory of the cluster's certificates and keys")
	setting(cmd.Flags(), "tls")
}

func checkTLS(dir string) error {
	if dir == "" {
		return usagef("--tls is missing: the directory of the cluster's certificates and keys")
	}
	return nil
}

// memberJSON is a netquic.Member.
type memberJSON struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Cluster string    `json:"cluster"`
	File    string    `json:"file"`
	Pin     string    `json:"pin"`
	Expires time.Time `json:"expires"`
	Key     bool      `json:"key"`
	Problem string    `json:"problem,omitempty"`
}

func makeMemberJSON(a *netquic.Authority, m netquic.Member) memberJSON {
	return memberJSON{m.Name, string(m.Role), clusterName(a), m.File, m.Pin.String(), m.Expires,
		m.HasKey, problem(m)}
}

// clusterName is how people write the number of a cluster.
func clusterName(a *netquic.Authority) string { return fmt.Sprintf("%016x", a.ID()) }

func problem(m netquic.Member) string {
	if m.Err == nil {
		return ""
	}
	s := strings.TrimPrefix(m.Err.Error(), "netquic: ")
	s = strings.TrimPrefix(s, m.File+": ")
	return strings.TrimPrefix(s, "certificate refused: ")
}

func (p *program) certInitCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the authority of a new cluster",
		Args:  noArgs,
	}
	addTLSFlag(cmd, &dir)
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := checkTLS(dir); err != nil {
			return err
		}
		a, err := netquic.CreateAuthority(dir)
		if err != nil {
			return err
		}
		if p.output == outputJSON {
			return p.showMember(dir, "ca")
		}
		_, err = fmt.Fprintf(p.stdout, "%s is the authority of the new cluster %s; "+
			"its key is ca.key beside it, and stays here\n",
			filepath.Join(dir, netquic.AuthorityCertFile), clusterName(a))
		return err
	}
	return cmd
}

func (p *program) certIssueCommand(role netquic.Role) *cobra.Command {
	var dir string
	issue := netquic.IssueNode
	if role == netquic.RoleClient {
		issue = netquic.IssueClient
	}
	cmd := &cobra.Command{
		Use:   string(role) + " NAME",
		Short: "Make the key and the certificate of a " + string(role),
		Long: fmt.Sprintf(`Makes NAME.key and NAME.pem of a %s in the directory of the authority,
which must have its key there. A certificate that is there is not replaced. To renew one, delete
NAME.pem: the key stays, and with it what the %[1]s is known by.`, role),
		Args: exactly(1, "a name"),
	}
	addTLSFlag(cmd, &dir)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := checkTLS(dir); err != nil {
			return err
		}
		name := args[0]
		if err := issue(dir, name); err != nil {
			if bad, ok := errors.AsType[*netquic.NameError](err); ok {
				return &usageError{err: bad}
			}
			return err
		}
		if p.output == outputJSON {
			return p.showMember(dir, name)
		}
		_, err := fmt.Fprintf(p.stdout, "%s is the certificate of the %s %s; it needs %s.key and "+
			"ca.pem beside it\n", filepath.Join(dir, name+".pem"), role, name, name)
		return err
	}
	return cmd
}

// showMember prints one certificate as JSON.
func (p *program) showMember(dir, name string) error {
	a, list, err := netquic.ListMembers(dir)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(m netquic.Member) bool { return m.Name == name })
	if i < 0 {
		return fmt.Errorf("%s is gone", filepath.Join(dir, name+".pem"))
	}
	return p.printJSON(makeMemberJSON(a, list[i]))
}

func (p *program) certListCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the certificates of a cluster's directory",
		Long: `Lists the authority and the certificates beside it. One that nobody would take is
listed with what is wrong with it, and makes the exit code 1.`,
		Args: noArgs,
	}
	addTLSFlag(cmd, &dir)
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := checkTLS(dir); err != nil {
			return err
		}
		return p.listMembers(dir)
	}
	return cmd
}

func (p *program) listMembers(dir string) error {
	a, list, err := netquic.ListMembers(dir)
	if err != nil {
		return err
	}
	bad := 0
	t := p.newTable("NAME", "ROLE", "EXPIRES", "KEY", "PIN", "PROBLEM")
	for _, m := range list {
		key, expires := "here", m.Expires.Format(time.DateOnly)
		if !m.HasKey {
			key = "elsewhere"
		}
		if m.Role == netquic.RoleAuthority {
			expires = "never"
		}
		if m.Err != nil {
			bad++
		}
		role := string(m.Role)
		if role == "" {
			role = "?"
		}
		t.add(makeMemberJSON(a, m), printable([]byte(m.Name)), role, expires, key, m.Pin.String(),
			harmless(problem(m)))
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "cluster %s: %d certificates\n", clusterName(a), len(list)-1)
	if bad > 0 {
		return fmt.Errorf("%d of the certificates in %s cannot be used", bad, dir)
	}
	return nil
}

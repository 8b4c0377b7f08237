//go:build !linux

package netquic

import "net"

// polling leaves a socket as it is: [procs.Follow] is there on Linux only.
func polling(c *net.UDPConn) net.PacketConn { return c }

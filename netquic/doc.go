// Package netquic carries calls over QUIC.
package netquic

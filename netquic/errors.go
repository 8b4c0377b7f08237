package netquic

import (
	"context"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"
)

// Reason is why an end closed a connection: the application error code of the QUIC
// CONNECTION_CLOSE. Wire constants, never renumbered.
type Reason uint64

const (
	ReasonDone         Reason = 0 // the client has no more calls
	ReasonShutdown     Reason = 1 // the server stopped
	ReasonFrameTooLong Reason = 2 // a length above the limit
	ReasonUnknownKind  Reason = 3 // a kind this end does not take
	ReasonMalformed    Reason = 4 // too short, an unknown status, or bytes behind a bare status
	ReasonTruncated    Reason = 5 // the lane ended inside a frame
	ReasonSlowFrame    Reason = 6 // a frame was begun and not completed in time
	ReasonSlowReader   Reason = 7 // answers were not taken in time
	ReasonUnstarted    Reason = 8 // the server stopped, having executed nothing on this connection
	ReasonReplaced     Reason = 9 // the peer has opened a newer connection
	reasonCount               = 10
)

var reasonNames = [reasonCount]string{
	"done", "shutdown", "frame too long", "unknown kind", "malformed frame", "truncated frame",
	"slow frame", "slow reader", "unstarted", "replaced",
}

func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint64(r))
}

var (
	// ErrInDoubt matches (errors.Is) a failed call that may have been executed: it was sent and no
	// answer came. Every other failure of Call means that it certainly was not.
	ErrInDoubt = errors.New("netquic: the call may have been executed")
	// ErrTimeout is the cause of a call that ended by its deadline without a context ending. It
	// matches context.DeadlineExceeded too.
	ErrTimeout error = timeoutError{}
	// ErrOverloaded is the server's answer when it has as many calls in flight as it takes.
	ErrOverloaded = errors.New("netquic: server overloaded")
	// ErrClosed is returned by a closed client or server.
	ErrClosed = errors.New("netquic: closed")
	// ErrRefused says that the address answered that nothing listens there.
	ErrRefused = errors.New("netquic: nothing is listening")
	// ErrWrongProtocol says that the other end speaks none of our protocols.
	ErrWrongProtocol = errors.New("netquic: the server does not speak " + Protocol)
	// ErrAnswerTooLarge says that the call was executed, but its answer exceeds the frame limit.
	ErrAnswerTooLarge = errors.New("netquic: the answer exceeds the frame limit")
	// ErrNoPin is returned by NewClient when the options give no way to know the server.
	ErrNoPin = errors.New("netquic: no Pin, Authority or KnownServers given")

	errDraining = errors.New("netquic: server shutting down")
	errLaneDead = errors.New("netquic: lane ended")
	errExpired  = errors.New("netquic: deadline passed before the server started the call")
)

// RemoteError is an error the server's Handler returned. Code and Message are the application's.
type RemoteError struct {
	Code    uint32
	Message string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("netquic: remote error %d: %s", e.Code, e.Message)
}

// CallError is a call that got no answer from the server's Handler.
type CallError struct {
	Addr    string // of the server
	InDoubt bool   // it may have been executed; otherwise it certainly was not
	Err     error  // the cause: a context's error, ErrTimeout, ErrOverloaded, *CloseError, ...
}

func (e *CallError) Error() string {
	doubt := "not executed"
	if e.InDoubt {
		doubt = "in doubt"
	}
	return fmt.Sprintf("netquic: call to %s (%s): %v", e.Addr, doubt, e.Err)
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrInDoubt) tell whether the call may have been executed.
func (e *CallError) Is(target error) bool { return target == ErrInDoubt && e.InDoubt }

// CloseError is a connection that one end closed on purpose.
type CloseError struct {
	Reason Reason
	Remote bool // the other end closed it
	Detail string
}

func (e *CloseError) Error() string {
	who := "closed by this end"
	if e.Remote {
		who = "closed by the other end"
	}
	s := fmt.Sprintf("netquic: connection %s: %s", who, e.Reason)
	if e.Detail != "" && e.Detail != e.Reason.String() {
		s += " (" + e.Detail + ")"
	}
	return s
}

// SizeError is a request that no frame holds. Nothing was sent.
type SizeError struct {
	Bytes, MaxBytes int // of the whole frame
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("netquic: request frame of %d bytes, limit %d", e.Bytes, e.MaxBytes)
}

// isUnstarted tells the ends of a connection by which the server says that it has executed nothing
// on it: its handshake was refused, or it came while the server was shutting down.
func isUnstarted(err error) bool {
	if errors.Is(err, ErrCertRefused) {
		return true
	}
	var te *quic.TransportError
	if errors.As(err, &te) {
		return te.Remote && te.ErrorCode == quic.ConnectionRefused
	}
	var ce *CloseError
	return errors.As(err, &ce) && ce.Remote && ce.Reason == ReasonUnstarted
}

// closeCause turns the error a QUIC connection ended with into ours.
func closeCause(err error) error {
	var app *quic.ApplicationError
	if errors.As(err, &app) {
		return &CloseError{Reason: Reason(app.ErrorCode), Remote: app.Remote,
			Detail: app.ErrorMessage}
	}
	var te *quic.TransportError
	if errors.As(err, &te) && te.Remote && te.ErrorCode == alertBadCertificate {
		return ErrCertRefused
	}
	return err
}

type timeoutError struct{}

func (timeoutError) Error() string        { return "netquic: deadline exceeded" }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

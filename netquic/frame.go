package netquic

import (
	"encoding/binary"
	"fmt"
)

// Wire constants: never renumbered.
const (
	kindRequest  = 1 // client to server
	kindResponse = 2 // server to client
	kindMessage  = 3 // peer to peer: no answer
	kindWelcome  = 4 // peer to the peer that has connected: it has been let in
	kindProbe    = 5 // peer to peer: to be ignored
)

// Status of a response: wire constants, never renumbered.
const (
	statusOK         = 0 // body: the answer
	statusError      = 1 // body: u32 code, then the message
	statusOverloaded = 2 // no body; not executed
	statusDraining   = 3 // no body; not executed
	statusExpired    = 4 // no body; the deadline had passed on arrival, not executed
	statusTooLarge   = 5 // no body; executed, but the answer exceeds the frame limit
	statusCount      = 6
)

const (
	lengthBytes   = 4                // u32 length of everything after itself
	messageBytes  = lengthBytes + 1  // ... and the kind
	prefixBytes   = messageBytes + 8 // ... and the request id
	requestBytes  = prefixBytes + 4  // ... and the milliseconds left
	responseBytes = prefixBytes + 1  // ... and the status
	errorBytes    = 4                // u32 code before the message of statusError
)

// side tells which kind of frame an end accepts.
type side uint8

const (
	serverSide side = kindRequest
	clientSide side = kindResponse
	peerSide   side = kindMessage
	dialerSide side = kindWelcome
)

// takes tells whether the side accepts frames of this kind.
func (s side) takes(kind byte) bool {
	return kind == byte(s) || s == peerSide && kind == kindProbe
}

// head returns the size of the smallest frame the side accepts.
func (s side) head() int {
	switch s {
	case serverSide:
		return requestBytes
	case clientSide:
		return responseBytes
	}
	return messageBytes
}

// frame is one parsed frame. body points into the read buffer and is valid until it is refilled.
type frame struct {
	id     uint64
	millis uint32 // requests: milliseconds the caller still has
	status uint8  // responses
	probe  bool   // whether this is no message
	body   []byte
}

// FrameError says why the bytes of a lane are not frames. The connection is closed with Reason.
type FrameError struct {
	Reason Reason
	Detail string
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("netquic: %s: %s", e.Reason, e.Detail)
}

// parseFrame reads the frame at the start of b, as the given side may receive it, and returns the
// bytes it took. With an incomplete frame it returns n == 0 and need, the size of the whole frame
// as far as b tells. Length and kind are judged as soon as they are there, before any of the body
// is waited for. No more than maxBytes are ever asked for.
func parseFrame(b []byte, s side, maxBytes int) (f frame, n, need int, err error) {
	head := s.head()
	if len(b) < lengthBytes {
		return f, 0, min(head, prefixBytes), nil
	}
	length := int64(binary.LittleEndian.Uint32(b))
	if length > int64(maxBytes-lengthBytes) {
		return f, 0, 0, &FrameError{ReasonFrameTooLong,
			fmt.Sprintf("%d bytes declared, limit %d", length+lengthBytes, maxBytes)}
	}
	if len(b) > lengthBytes && !s.takes(b[lengthBytes]) {
		return f, 0, 0, &FrameError{ReasonUnknownKind, fmt.Sprintf("kind %d", b[lengthBytes])}
	}
	need = lengthBytes + int(length)
	if need < head {
		return f, 0, 0, &FrameError{ReasonMalformed, fmt.Sprintf("frame of %d bytes", need)}
	}
	if len(b) < need {
		return f, 0, need, nil
	}
	f.body = b[head:need:need]
	switch s {
	case peerSide:
		f.probe = b[lengthBytes] == kindProbe
		return f, need, need, nil
	case dialerSide:
		if len(f.body) > 0 {
			return frame{}, 0, 0, &FrameError{ReasonMalformed,
				fmt.Sprintf("welcome followed by %d bytes", len(f.body))}
		}
		return f, need, need, nil
	}
	f.id = binary.LittleEndian.Uint64(b[messageBytes:])
	if s == serverSide {
		f.millis = binary.LittleEndian.Uint32(b[prefixBytes:])
		return f, need, need, nil
	}
	f.status = b[prefixBytes]
	if reason := checkStatus(f.status, len(f.body)); reason != "" {
		return frame{}, 0, 0, &FrameError{ReasonMalformed, reason}
	}
	return f, need, need, nil
}

// checkStatus says what is wrong with a response of this status and body length, or nothing.
func checkStatus(status uint8, bodyBytes int) string {
	switch {
	case status >= statusCount:
		return fmt.Sprintf("status %d", status)
	case status == statusError && bodyBytes < errorBytes:
		return fmt.Sprintf("error answer with a body of %d bytes", bodyBytes)
	case status > statusError && bodyBytes > 0:
		return fmt.Sprintf("status %d followed by %d bytes", status, bodyBytes)
	}
	return ""
}

// appendRequest appends a whole request frame.
func appendRequest(dst []byte, id uint64, millis uint32, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(requestBytes-lengthBytes+len(body)))
	dst = append(dst, kindRequest)
	dst = binary.LittleEndian.AppendUint64(dst, id)
	dst = binary.LittleEndian.AppendUint32(dst, millis)
	return append(dst, body...)
}

// appendMessage appends a whole frame to a peer.
func appendMessage(dst []byte, kind byte, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(messageBytes-lengthBytes+len(body)))
	dst = append(dst, kind)
	return append(dst, body...)
}

// openResponse appends the head of a response whose body is appended next; closeResponse then sets
// the length.
func openResponse(dst []byte, id uint64, status uint8) []byte {
	dst = append(dst, 0, 0, 0, 0, kindResponse)
	dst = binary.LittleEndian.AppendUint64(dst, id)
	return append(dst, status)
}

// closeResponse sets the length of the response that starts at dst[start:] and ends with dst.
func closeResponse(dst []byte, start int) {
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-lengthBytes))
}

// appendStatus appends a response without a body.
func appendStatus(dst []byte, id uint64, status uint8) []byte {
	start := len(dst)
	dst = openResponse(dst, id, status)
	closeResponse(dst, start)
	return dst
}

// appendError appends an application error.
func appendError(dst []byte, id uint64, code uint32, message string) []byte {
	start := len(dst)
	dst = openResponse(dst, id, statusError)
	dst = binary.LittleEndian.AppendUint32(dst, code)
	dst = append(dst, message...)
	closeResponse(dst, start)
	return dst
}

package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// CheckClose returns an error for a code or a reason that a close frame can't have. It doesn't check the
// reason's length.
func CheckClose(code websocket.StatusCode, reason string) error {
	if !utf8.ValidString(reason) { // RFC 6455, section 5.5.1
		return errors.New("wsroom: a close reason must be UTF-8")
	}
	return CheckCloseCode(code)
}

// CheckCloseCode returns an error for a code that an endpoint may not send (RFC 6455, sections 7.4.1 and
// 7.4.2, and the codes registered since).
func CheckCloseCode(code websocket.StatusCode) error {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return fmt.Errorf("wsroom: close code %d can't be sent", int(code))
	}
	return nil
}

// ClosePayload returns the payload of a close frame with a code and a reason (RFC 6455, section 5.5.1).
func ClosePayload(code websocket.StatusCode, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

// CloseErrorOf returns what a close frame's payload says. A payload without a code has StatusNoStatusRcvd
// (RFC 6455, section 7.1.5).
func CloseErrorOf(payload []byte) websocket.CloseError {
	if len(payload) < 2 {
		return websocket.CloseError{Code: websocket.StatusNoStatusRcvd}
	}
	code := websocket.StatusCode(binary.BigEndian.Uint16(payload))
	return websocket.CloseError{Code: code, Reason: string(payload[2:])}
}

package server

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// NotInstalled ends the text of errors that say what isn't.
const NotInstalled = " isn't installed"

// runSocketIO has Node.js take this process over.
func runSocketIO(broker string) error { return runSocketIOWith(broker) }

// runSocketIORecover has connection state recovery, over Redis Streams.
func runSocketIORecover(broker string) error { return runSocketIOWith(broker, "recover") }

func runSocketIOWith(args ...string) error {
	node, err := exec.LookPath("node")
	if err != nil {
		return err
	}
	return syscall.Exec(node, append([]string{"node", socketIODir() + "/server.mjs"}, args...), os.Environ())
}

func socketIOMissing() error {
	if _, err := exec.LookPath("node"); err != nil {
		return errors.New("node" + NotInstalled)
	}
	if _, err := os.Stat(socketIODir() + "/node_modules"); err != nil {
		return errors.New("Socket.IO" + NotInstalled)
	}
	return nil
}

// socketIODir is the server's folder, seen from that of the benchmarks or from the repository's root.
func socketIODir() string {
	const dir = "socketio"
	if _, err := os.Stat(dir); err != nil {
		return "benchmarks/" + dir
	}
	return dir
}

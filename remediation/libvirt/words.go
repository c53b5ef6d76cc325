package libvirt

import (
	"errors"
	"fmt"
	"strings"

	platform "github.com/protip/protip/internal/platform/libvirt"
)

// cures say what an operator can do about an error of a migration: by libvirt's code, and where one code says many things, by
// what its text holds. The first that fits counts. The VM is on its source, running, in each of these.
var cures = []struct {
	code platform.Code
	text string // part of the message, in lower case; empty: any
	cure string
}{
	{platform.SystemError, "", "the source does not reach the target's libvirt daemon: check from the source that it resolves and reaches the target's address, and that the daemon listens there"},
	{platform.AuthFailed, "", "the target's daemon does not let the source in: check the certificates or keys that the source's own libvirt uses"},
	{platform.OperationAborted, "", "somebody aborted it"},
	{platform.MigrateUnsafe, "", "its disks are on storage that the hosts do not share, or with a cache mode that is not safe to migrate: share it, or set migration.copy_storage"},
	{platform.OperationTimeout, "", "another operation holds the VM: wait for it, or abort it"},
	{platform.OperationInvalid, "", "the VM is not in a state to be migrated"},
	{platform.InternalError, "same host", "source and target are one and the same machine by their UUID: give each host its own host_uuid"},
	{platform.InternalError, "cpu", "the target's CPU lacks what the VM was started with"},
	{platform.InternalError, "", "most often the link between the hosts failed: check it, and both daemons' logs, before you try again"},
	{platform.OperationFailed, "already exists", "the target has another VM of that name or UUID: rename or remove one of them"},
	{platform.OperationFailed, "not running", "the VM ended while it was moved"},
	{platform.OperationFailed, "unexpectedly", "the VM, or its process on one of the hosts, ended while it was moved"},
	{platform.OperationFailed, "", "look at the VM's log on both hosts"},
}

// explained is a daemon's error with what to do about it.
func explained(err error) error {
	if cure := cureOf(err); cure != "" {
		return fmt.Errorf("%w: %s", err, cure)
	}
	return err
}

// words are an error's text, and what to do about it.
func words(err error) string { return explained(err).Error() }

func cureOf(err error) string {
	var theirs *platform.Error
	if !errors.As(err, &theirs) {
		return ""
	}
	for _, c := range cures {
		if c.code == theirs.Code && strings.Contains(strings.ToLower(theirs.Message), c.text) {
			return c.cure
		}
	}
	return ""
}

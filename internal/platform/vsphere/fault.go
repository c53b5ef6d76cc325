package vsphere

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/types"
)

// IsNotAuthenticated reports whether the vCenter does not know the session (any more).
func IsNotAuthenticated(err error) bool {
	return err != nil && fault.Is(err, &types.NotAuthenticated{})
}

// IsGone reports whether the call named an object that the vCenter does not have (any more).
func IsGone(err error) bool {
	return err != nil && fault.Is(err, &types.ManagedObjectNotFound{})
}

// Gone is the object that the call named and the vCenter does not have, false if that is not why it failed.
func Gone(err error) (types.ManagedObjectReference, bool) {
	var f *types.ManagedObjectNotFound
	if err == nil {
		return types.ManagedObjectReference{}, false
	}
	if _, ok := fault.As(err, &f); !ok {
		return types.ManagedObjectReference{}, false
	}
	return f.Obj, true
}

// IsNoPermission reports whether the user may not do or see this.
func IsNoPermission(err error) bool {
	return err != nil && !IsNotAuthenticated(err) && fault.Is(err, &types.NoPermission{})
}

// IsRestricted reports whether the vCenter refused a query for its size: config.vpxd.stats.maxQueryMetrics.
func IsRestricted(err error) bool {
	// Versions differ in what they send: a fault of its own, or words alone.
	return err != nil && (fault.Is(err, &types.RestrictedByAdministrator{}) ||
		strings.Contains(err.Error(), "restricted by administrator") || strings.Contains(err.Error(), "restricted by the administrator"))
}

// IsTimeout reports whether the call had no answer in time.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &ne) && ne.Timeout())
}

// IsOverload reports whether the call may have been too large for the vCenter: refused for its size, too late, or failed in a
// proxy or in the vCenter without a fault that says why.
func IsOverload(err error) bool {
	if err == nil {
		return false
	}
	if IsRestricted(err) || IsTimeout(err) || fault.Is(err, &types.SystemError{}) {
		return true
	}
	for _, status := range []string{": 502 ", ": 503 ", ": 504 "} {
		if strings.Contains(err.Error(), status) {
			return true
		}
	}
	return false
}

// isLoginRefusal reports whether a log-in failed for what was sent, so that sending it again would not help.
func isLoginRefusal(err error) bool {
	for _, f := range []types.BaseMethodFault{&types.InvalidLogin{}, &types.PasswordExpired{}, &types.NoPermission{}, &types.NoClientCertificate{}} {
		if err != nil && fault.Is(err, f) {
			return true
		}
	}
	return false
}

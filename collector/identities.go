package collector

import (
	"fmt"
	"sync"
)

// Identities knows which source watches which platform, by the platform's own identity (a vCenter's instance UUID). All
// sources of a process share one. Its methods may be called from any goroutine.
type Identities struct {
	mu     sync.Mutex
	source map[string]string // by identity
}

// NewIdentities is an empty one.
func NewIdentities() *Identities { return &Identities{source: map[string]string{}} }

// Claim gives the identity to the source. If another source has it already, it fails with ErrDuplicate and that source's
// name. A source has one identity: claiming another gives up the one before.
func (i *Identities) Claim(identity, source string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if owner, ok := i.source[identity]; ok && owner != source {
		return fmt.Errorf("source %q is the same platform as source %q (identity %s): %w; remove one of them from the config",
			source, owner, identity, ErrDuplicate)
	}
	for id, owner := range i.source {
		if owner == source {
			delete(i.source, id)
		}
	}
	i.source[identity] = source
	return nil
}

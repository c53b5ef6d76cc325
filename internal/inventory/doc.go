// Package inventory holds what protip knows of a fleet on any platform: clusters, hosts, VMs, datastores, networks and their samples.
// It promises immutable snapshots and typed changes: a reader never locks, and what it holds never changes under it.
// It must import nothing but the standard library, and it neither reads a clock nor logs.
package inventory

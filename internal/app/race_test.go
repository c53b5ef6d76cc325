//go:build race

package app_test

// slower is what the race detector makes of everything: a sample must not be old before it is there.
const slower = 2

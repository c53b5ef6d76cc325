package hyperv

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// What a method of Hyper-V returns that has begun a job, and one that nobody waited for long enough.
const (
	returnJob     = 4096
	returnTimeout = 32772
)

// codePending is what a move that was taken may be answered with: it is under way.
const codePending = 0x800703E5

// unanswered are errors of who waited for the method, not of the method: it may have run.
var unanswered = []uint32{
	0x800705B4, // time-out
	0x800706BA, // the RPC server is unavailable
	0x800706BE, // the remote procedure call failed
	0x800706BF, // and did not execute, says one side
}

// cures say what an operator can do about an error of a migration. The host's own words are in its language, so that nothing is read
// from them but the number.
var cures = map[uint32]string{
	0x8009030E: "the source has no credentials for the target: let it delegate to the target (constrained delegation for cifs and Microsoft Virtual System Migration Service, Kerberos on both hosts), or cluster the two",
	0x80090322: "the target's name is not known to Kerberos: check its service principal names (Microsoft Virtual System Migration Service) and that DNS gives the right host",
	0x8009030D: "the credentials do not hold at the target: check the delegation, and that neither computer's password has expired",
	0x8007274D: "the target refuses the connection: check that live migrations are enabled there, and the firewall for TCP 6600, SMB and RPC",
	0x8007274C: "the target does not answer: check the migration network and the firewall for TCP 6600",
	0x800705AA: "the target has not enough memory free: free some there, or move the VM elsewhere",
	0x8007000E: "the target has not enough memory free: free some there, or move the VM elsewhere",
	0x800705B4: "it took longer than the cluster allows: look at the migration network's load, and at how fast the VM changes its memory",
	0xC03A0014: "a file of the VM is missing at the target, most often an ISO in its DVD drive: eject it, or put it where both hosts reach it",
	0x80070534: "no account of that name could be resolved; where events 21024 and 1106 go with it, a right that a group policy took from NT VIRTUAL MACHINE\\Virtual Machines (log on as a service) is missing. A quick migration works meanwhile",
	0x80070569: "a group policy took the right to log on as a service from NT VIRTUAL MACHINE\\Virtual Machines at the target: give it back, or restart the host's vmms until the policy comes again",
	0x80070005: "the acting user, or the source's computer account, may not: it has to be an administrator of the cluster and of both hosts",
	0x800704C7: "somebody cancelled it",
	0x800713B2: "the cluster has no node of that name",
	0x800713BA: "the node is down",
	0x800713BE: "the node is not up",
	0x800713CE: "the node is paused",
	0x8007139F: "the role is not being moved any more",
	0x80071395: "the cluster has no such role any more",
	0x800703E5: "another migration of it is under way",
	0x800700AA: "both hosts take part in as many migrations as they may: wait, or raise their maximum",
	0x80070057: "the cluster did not understand the call: please report it, with the version of Windows",
	0x800713F8: "the cluster refuses to move the role: look at its owners and dependencies in Failover Cluster Manager",
	0x80070490: "the host does not have the VM any more",
}

// failure is a migration's error, its number and what to do about it. words are the host's own, may be empty, and may hold the number.
func failure(code uint32, words string) error {
	cure := cures[code]
	switch {
	case code == 0 && words == "":
		return errors.New("the migration ended and left the VM on its source, and nothing tells why: look at events 1106, 1155, 20417 and 21024 on both hosts")
	case code == 0:
		return errors.New(words)
	case words == "":
		words = "failed"
	}
	if !strings.Contains(strings.ToUpper(words), fmt.Sprintf("%08X", code)) {
		words = fmt.Sprintf("%s (0x%08X)", words, code)
	}
	if cure == "" {
		return errors.New(words)
	}
	return fmt.Errorf("%s: %s", words, cure)
}

var hexCode = regexp.MustCompile(`0[xX]([0-9A-Fa-f]{8})\b`)

// codeIn is the number in a host's words: the last that there is a cure for, else the last, 0 if there is none. The outer ones say less.
func codeIn(words string) uint32 {
	var codes []uint32
	for _, m := range hexCode.FindAllStringSubmatch(words, 16) {
		if n, err := strconv.ParseUint(m[1], 16, 32); err == nil {
			codes = append(codes, uint32(n))
		}
	}
	for _, c := range slices.Backward(codes) {
		if cures[c] != "" {
			return c
		}
	}
	if len(codes) == 0 {
		return 0
	}
	return codes[len(codes)-1]
}

// maxWords bounds what is taken over of a host's message.
const maxWords = 500

// plain is a host's message on one line, of bounded length.
func plain(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "..."
	}
	return strings.ToValidUTF8(s, "")
}

// refusal is a method's own no.
type refusal struct {
	value uint32
	words string
}

func (r refusal) Error() string {
	return fmt.Sprintf("the source refused it with %d: %s", r.value, r.words)
}

func returned(value uint32) error {
	words := map[uint32]string{
		5: "it did not understand the call", 32769: "access denied: the acting user has to be a Hyper-V administrator of both hosts",
		32770: "it does not have the VM", 32771: "it does not know the state of the VM", returnTimeout: "a time-out",
		32773: "a parameter is wrong", 32774: "the system is in use", 32775: "the VM is in no state to be moved, or is a cluster's", 32778: "out of memory",
	}[value]
	if words == "" {
		words = "look at the events of Hyper-V-VMMS on the source"
	}
	return refusal{value, words}
}

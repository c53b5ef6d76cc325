package load

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// Bounds of a trace: what lies beyond is an error, not memory.
const (
	maxTraceBytes  = 256 << 20 // unpacked
	maxTraceVMs    = 100_000
	maxTraceValues = 50_000_000
)

// TraceStep is the time that one row of a trace stands for.
const TraceStep = 5 * time.Minute

// Trace is measured load: each VM's CPU demand, one value for every five minutes. Row 0 begins at Start; after the last row
// it begins again.
type Trace struct {
	Start time.Time
	names []string
	rows  int
	cpu   []float32 // ratio; VM i of row r is cpu[r*len(names)+i]
}

var _ Load = (*Trace)(nil)

// ReadTrace reads a trace from a file, packed by gzip or plain: a header of VM names, then one row for every five minutes, with
// each VM's CPU demand in percent.
func ReadTrace(path string) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	defer f.Close()
	return ParseTrace(path, f)
}

// ParseTrace reads a trace from r; its errors begin with "name:line:".
func ParseTrace(name string, r io.Reader) (*Trace, error) { return parse(name, r, maxTraceBytes) }

func parse(name string, r io.Reader, limit int64) (*Trace, error) {
	packed := bufio.NewReader(r)
	var plain io.Reader = packed
	if magic, _ := packed.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		unzip, err := gzip.NewReader(packed)
		if err != nil {
			return nil, fmt.Errorf("%s:1: not a gzip file: %w", name, err)
		}
		plain = unzip
	}
	bounded := &io.LimitedReader{R: plain, N: limit}
	tr, err := parseRows(csv.NewReader(bounded))
	if bounded.N <= 0 {
		return nil, fmt.Errorf("%s: trace is larger than %d bytes unpacked", name, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	return tr, nil
}

func parseRows(in *csv.Reader) (*Trace, error) {
	header, err := in.Read()
	if err != nil {
		return nil, atLine(err, "no header of VM names")
	}
	if err := checkNames(header); err != nil {
		return nil, fmt.Errorf("1: %w", err)
	}
	tr := &Trace{names: header}
	in.ReuseRecord = true
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, atLine(err, "")
		}
		if len(tr.cpu)+len(row) > maxTraceValues {
			line, _ := in.FieldPos(0)
			return nil, fmt.Errorf("%d: more than %d values", line, maxTraceValues)
		}
		for i, field := range row {
			percent, err := strconv.ParseFloat(field, 32)
			if err != nil || !(percent >= 0 && percent <= 100) {
				line, _ := in.FieldPos(i)
				return nil, fmt.Errorf("%d: VM %q: want a CPU percentage from 0 to 100, got %q", line, tr.names[i], field)
			}
			tr.cpu = append(tr.cpu, float32(percent/100))
		}
		tr.rows++
	}
	if tr.rows == 0 {
		return nil, errors.New("2: no row of values after the header")
	}
	return tr, nil
}

func checkNames(names []string) error {
	if len(names) > maxTraceVMs {
		return fmt.Errorf("%d VMs, at most %d are read", len(names), maxTraceVMs)
	}
	column := make(map[string]int, len(names))
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("VM %d has no name", i+1)
		}
		if first, twice := column[name]; twice {
			return fmt.Errorf("VM name %q stands at columns %d and %d", name, first, i+1)
		}
		column[name] = i + 1
	}
	return nil
}

// atLine puts a line number before what the CSV reader says.
func atLine(err error, ifEmpty string) error {
	var syntax *csv.ParseError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%d: %w", syntax.Line, syntax.Err)
	case errors.Is(err, io.EOF) && ifEmpty != "":
		return errors.New("1: " + ifEmpty)
	default:
		return fmt.Errorf("1: %w", err)
	}
}

// VMs is how many VMs the trace has.
func (tr *Trace) VMs() int { return len(tr.names) }

// Rows is how many steps the trace has.
func (tr *Trace) Rows() int { return tr.rows }

// Name is a VM's name in the trace.
func (tr *Trace) Name(vm int) string { return tr.names[vm] }

// Row is a VM's CPU demand in one step, as a ratio of its vCPUs. Rows beyond the last begin again.
func (tr *Trace) Row(vm, row int) float64 {
	row %= tr.rows
	if row < 0 {
		row += tr.rows
	}
	return float64(tr.cpu[row*len(tr.names)+vm])
}

// At is the VM's demand at t: the value of the step that t falls in.
func (tr *Trace) At(vm int, t time.Time) Use { return tr.at(vm, tr.step(t)) }

func (tr *Trace) at(vm, row int) Use {
	if vm < 0 || vm >= len(tr.names) {
		return Use{}
	}
	return Around(vm, tr.Row(vm, row))
}

// step is the number of whole steps from Start to t, negative before it.
func (tr *Trace) step(t time.Time) int {
	since := t.Sub(tr.Start)
	n := int(since / TraceStep)
	if since < 0 && since%TraceStep != 0 {
		n--
	}
	return n
}

// Window is the part of a trace from row first on, for rows steps; it begins at Start and repeats for good.
func (tr *Trace) Window(first, rows int) Load {
	return Func(func(vm int, t time.Time) Use {
		n := tr.step(t) % rows
		if n < 0 {
			n += rows
		}
		return tr.at(vm, first+n)
	})
}

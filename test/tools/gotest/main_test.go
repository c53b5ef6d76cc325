package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const events = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: no promtool: test/tools/get.sh fetches it\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    a_test.go:9: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
{"Action":"build-output","ImportPath":"q","Output":"q.go:1:1: syntax error\n"}
go: a line of go's own
{"Action":"output","Package":"p","Test":"TestD","Output":"panic: at last\n"}`
	const want = `    a_test.go:9: wrong
FAIL	p	0.1s
q.go:1:1: syntax error
go: a line of go's own
p TestD did not end:
panic: at last
skipped: p TestA: no promtool: test/tools/get.sh fetches it
1 passed, 1 failed, 1 skipped
`
	var out strings.Builder
	r := &report{out: &out, said: map[test][]string{}}
	r.read(strings.NewReader(events))
	r.close()
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

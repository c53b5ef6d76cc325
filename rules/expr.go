package rules

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/protip/protip/internal/inventory"
)

// Bounds of one expression. There are no loops in what is allowed, so its nodes bound its time.
const (
	maxExprBytes    = 2048
	maxExprNodes    = 200
	maxPatternBytes = 128
	maxPatternSize  = 1000 // instructions of the compiled pattern
)

// program is a compiled expression. It never changes and may run on several goroutines, each with its own vm.VM.
type program struct {
	code  *vm.Program
	reads []*field // what it reads, each once, in order of first use
	words string   // the expression with the config's values in place
}

// scope is what an expression may name.
type scope struct {
	on         inventory.Kind // 0: of no object, config alone
	config     map[string]any // float64, string or bool
	vocabulary map[string]*field
	with       []*field          // names bound to PromQL
	varying    map[string]*field // keys of the config that differ from object to object
	settings   map[string]bool   // takes the keys of the config that are read
	formatters bool              // percent() and the like, which make text
}

// fault is one thing wrong with an expression, at a character of it, from 0.
type fault struct {
	at      int
	message string
	hint    string
}

// kinds of result an expression can be asked for.
const (
	wantBool   = reflect.Bool
	wantNumber = reflect.Float64
	wantText   = reflect.Invalid // any scalar, to be shown
)

// builtins are the functions of expr-lang that a pack may call: none of them loops, reads a clock or makes a list.
var builtins = []string{"abs", "ceil", "floor", "lower", "max", "min", "round", "upper"}

// operators that a pack may use. in, .., ??, |, % and the closures' # need lists, nil or integers, which there are none of.
var operators = []string{
	"!", "not", "&&", "and", "||", "or", "==", "!=", "<", "<=", ">", ">=",
	"+", "-", "*", "/", "**", "^", "contains", "startsWith", "endsWith", "matches",
}

// compile checks an expression against what it may name and compiles it. It reports every name it does not know at once,
// and types only when all names are known.
func compile(source string, sc scope, want reflect.Kind) (p program, faults []fault) {
	defer func() {
		if r := recover(); r != nil { // a fault of the expression compiler must not end the agent
			p, faults = program{}, []fault{{message: fmt.Sprintf("cannot be compiled: %v", r)}}
		}
	}()
	switch {
	case strings.TrimSpace(source) == "":
		return p, []fault{{message: "is empty"}}
	case len(source) > maxExprBytes:
		return p, []fault{{message: fmt.Sprintf("is longer than %d bytes", maxExprBytes)}}
	}
	cfg := sc.conf()
	tree, err := parser.ParseWithConfig(source, cfg)
	if err != nil {
		return p, []fault{asFault(err, source)}
	}
	v := vetter{scope: sc}
	v.vet(&tree.Node)
	if len(v.faults) > 0 {
		return p, v.faults
	}
	if _, err := checker.Check(tree, cfg); err != nil {
		return p, []fault{asFault(err, source)}
	}
	if faults := checkTypes(tree.Node, want); len(faults) > 0 {
		return p, faults
	}
	flat := flattener{scope: sc}
	ast.Walk(&tree.Node, &flat)
	code, err := compiler.Compile(tree, cfg)
	if err != nil {
		return p, []fault{asFault(err, source)}
	}
	return program{code: code, reads: flat.reads, words: tree.Node.String()}, nil
}

// conf is a fresh compiler configuration: it holds caches that must not be shared.
func (sc scope) conf() *conf.Config {
	env := types.Map{}
	for _, kind := range visible(sc.on) {
		env[kind.String()] = sc.objectType(kind)
	}
	config := types.Map{}
	for key, value := range sc.config {
		config[key] = types.TypeOf(value)
	}
	env["config"] = config
	for _, f := range sc.with {
		env[f.name] = types.TypeOf(float64(0))
	}

	c := conf.New(env)
	c.MaxNodes = maxExprNodes
	c.Optimize = false
	for name := range c.Builtins {
		if !slices.Contains(builtins, name) {
			c.Disabled[name] = true
		}
	}
	maps.DeleteFunc(c.Builtins, func(name string, _ *builtin.Function) bool { return c.Disabled[name] })
	if sc.formatters {
		addFormatters(c)
	}
	return c
}

func (sc scope) objectType(kind inventory.Kind) types.Map {
	out := types.Map{}
	for _, f := range sc.vocabulary {
		if f.object != kind {
			continue
		}
		switch f.typ {
		case number:
			out[f.name] = types.TypeOf(float64(0)) // types.Float would be a float32
		case text:
			out[f.name] = types.String
		case truth:
			out[f.name] = types.Bool
		}
	}
	return out
}

// goTypes puts the types of the expression compiler's messages into a pack's words.
var goTypes = strings.NewReplacer("types string and", "types text and", "and string)", "and text)", "type string)", "type text)",
	"use string as", "use text as", "float64", "number", "(type bool)", "(type true or false)")

// asFault places an error of the expression compiler.
func asFault(err error, source string) fault {
	var at *file.Error
	if !errors.As(err, &at) {
		message, _, _ := strings.Cut(err.Error(), "\n")
		return fault{message: message}
	}
	place := min(at.From, utf8.RuneCountInString(source))
	if at.Message == "unexpected token EOF" || at.Message == "unexpected end of expression" {
		return fault{at: utf8.RuneCountInString(strings.TrimRight(source, " \t\r\n")), message: "the expression ends too early"}
	}
	f := fault{at: place, message: strings.TrimSpace(goTypes.Replace(at.Message))}
	if place < len([]rune(source)) && []rune(source)[place] == '=' {
		f.hint = "a comparison is =="
	}
	return f
}

// vetter refuses all but scalars, comparisons, arithmetic and a few functions. expr-lang's own limits would not do: its
// predicates (all, sum, map, ...) stay when the builtins are off, and nested they neither stop nor keep to the budget.
type vetter struct {
	scope
	faults []fault
}

func (v *vetter) fail(n ast.Node, hint, format string, args ...any) {
	v.faults = append(v.faults, fault{n.Location().From, fmt.Sprintf(format, args...), hint})
}

func (v *vetter) vet(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BoolNode, *ast.StringNode, *ast.FloatNode:
	case *ast.IntegerNode: // one type of number: max(1, x) == 1 must not compare an int with a float
		f := &ast.FloatNode{Value: float64(n.Value)}
		f.SetLocation(n.Location())
		*node = f
	case *ast.UnaryNode:
		v.operator(n, n.Operator)
		v.vet(&n.Node)
	case *ast.BinaryNode:
		v.operator(n, n.Operator)
		if n.Operator == "matches" {
			v.pattern(n.Right)
		}
		v.vet(&n.Left)
		v.vet(&n.Right)
	case *ast.ConditionalNode:
		v.vet(&n.Cond)
		v.vet(&n.Exp1)
		v.vet(&n.Exp2)
	case *ast.IdentifierNode:
		v.bareName(n)
	case *ast.MemberNode:
		v.member(n)
	case *ast.BuiltinNode:
		v.call(n, n.Name, n.Arguments)
	case *ast.CallNode:
		callee, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			v.fail(n, "", "only a function can be called")
			return
		}
		v.call(n, callee.Value, n.Arguments)
	case *ast.NilNode:
		v.fail(n, "an input that is missing makes the rule unknown by itself", "there is no nil")
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		v.fail(n, "write the condition as one expression", "let and ; are not allowed")
	default: // lists, maps, slices, closures, optional chains, bytes
		v.fail(n, "expressions know numbers, text and true or false", "%s is not allowed", constructName(n))
	}
}

func constructName(n ast.Node) string {
	switch n.(type) {
	case *ast.ArrayNode:
		return "a list"
	case *ast.MapNode, *ast.PairNode:
		return "a map"
	case *ast.SliceNode:
		return "a slice"
	case *ast.ChainNode:
		return "?."
	case *ast.PredicateNode, *ast.PointerNode:
		return "a closure"
	}
	return "this"
}

func (v *vetter) operator(n ast.Node, op string) {
	if !slices.Contains(operators, op) {
		v.fail(n, "allowed are "+strings.Join(operators, " "), "operator %s is not allowed", op)
	}
}

// pattern bounds a regular expression. Matching takes time in proportion to its size, so the size is bounded.
func (v *vetter) pattern(right ast.Node) {
	s, ok := right.(*ast.StringNode)
	if !ok {
		v.fail(right, "", "the pattern of matches must be written out in quotes")
		return
	}
	if len(s.Value) > maxPatternBytes {
		v.fail(s, "", "the pattern is longer than %d bytes", maxPatternBytes)
		return
	}
	re, err := syntax.Parse(s.Value, syntax.Perl)
	if err != nil {
		v.fail(s, "", "bad pattern: %v", err)
		return
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil || len(prog.Inst) > maxPatternSize {
		v.fail(s, "make its repetitions smaller", "the pattern is too costly")
	}
}

func (v *vetter) bareName(n *ast.IdentifierNode) {
	if v.bound(n.Value) != nil {
		return
	}
	names := v.objectNames()
	if slices.Contains(names, n.Value) {
		v.fail(n, v.oneField(n.Value), "%s alone is not a value", n.Value)
		return
	}
	if _, ok := v.config[n.Value]; ok {
		v.fail(n, "did you mean config."+n.Value+"?", "unknown name %s", n.Value)
		return
	}
	if f := v.anyField(n.Value); f != "" {
		v.fail(n, "did you mean "+f+"?", "unknown name %s", n.Value)
		return
	}
	for _, f := range v.with {
		names = append(names, f.name)
	}
	v.fail(n, didYouMean(n.Value, names), "unknown name %s", n.Value)
}

// oneField is a hint for an object that was named alone.
func (v *vetter) oneField(object string) string {
	fields := v.fieldNames(object)
	if len(fields) == 0 {
		return "declare its keys under config: at the top of the pack"
	}
	return "name one of its fields, as " + object + "." + fields[0]
}

// bound is what a bare name is bound to, nil if to nothing.
func (sc scope) bound(name string) *field {
	for _, f := range sc.with {
		if f.name == name {
			return f
		}
	}
	return nil
}

func (v *vetter) member(n *ast.MemberNode) {
	object, ok := n.Node.(*ast.IdentifierNode)
	name, named := n.Property.(*ast.StringNode)
	if !ok || !named || n.Optional {
		v.fail(n, "", "only a field of %s can be read, by its name", strings.Join(v.objectNames(), ", "))
		return
	}
	names := v.objectNames()
	if !slices.Contains(names, object.Value) {
		hint := didYouMean(object.Value, names)
		if _, err := inventory.ParseKind(object.Value); err == nil && v.on == 0 {
			hint = "only config can be read here"
		} else if err == nil {
			hint = fmt.Sprintf("a rule on a %s can read %s", v.on, strings.Join(names, ", "))
		}
		v.fail(object, hint, "unknown name %s", object.Value)
		return
	}
	fields := v.fieldNames(object.Value)
	if slices.Contains(fields, name.Value) {
		return
	}
	if len(fields) == 0 {
		v.fail(name, "declare it under config: at the top of the pack", "the pack has no config")
		return
	}
	v.fail(name, didYouMean(name.Value, fields), "%s has no field %s", object.Value, name.Value)
}

func (v *vetter) call(n ast.Node, name string, args []ast.Node) {
	allowed := builtins
	if v.formatters {
		allowed = slices.Concat(builtins, formatterNames())
	}
	if !slices.Contains(allowed, name) {
		hint := didYouMean(name, allowed)
		if slices.Contains(formatterNames(), name) {
			hint = "it makes text, for summaries only"
		}
		v.fail(n, hint, "function %s is not allowed", name)
		return
	}
	if len(args) > 0 && args[0] != nil && args[0].Location().From < n.Location().From {
		v.fail(n, "write "+name+"(...)", "| is not allowed")
		return
	}
	for i := range args {
		v.vet(&args[i])
	}
}

func (sc scope) objectNames() []string {
	var out []string
	for _, kind := range visible(sc.on) {
		out = append(out, kind.String())
	}
	return append(out, "config") // which is all there is where no object is at hand
}

func (sc scope) fieldNames(object string) []string {
	if object == "config" {
		return slices.Sorted(maps.Keys(sc.config))
	}
	var out []string
	for _, f := range sc.vocabulary {
		if f.object.String() == object {
			out = append(out, f.name)
		}
	}
	slices.Sort(out)
	return out
}

// anyField is the path of a field of that name, of the nearest object that has one.
func (sc scope) anyField(name string) string {
	for _, kind := range visible(sc.on) {
		if _, ok := sc.vocabulary[kind.String()+"."+name]; ok {
			return kind.String() + "." + name
		}
	}
	return ""
}

// checkTypes wants every part of an expression to be a number, text or a truth: then nothing is left to fail when it runs.
func checkTypes(node ast.Node, want reflect.Kind) []fault {
	var faults []fault
	ast.Walk(&node, visitor(func(n *ast.Node) {
		if c, ok := (*n).(*ast.ConditionalNode); ok && c.Exp1.Type() != c.Exp2.Type() {
			faults = append(faults, fault{at: c.Exp1.Location().From, message: "both sides of ? : must be of one type"})
		}
	}))
	got := node.Type().Kind()
	switch {
	case len(faults) > 0:
	case want == wantBool && got != reflect.Bool:
		faults = append(faults, fault{message: fmt.Sprintf("must be true or false, and is %s", typeName(got))})
	case want == wantNumber && got != reflect.Float64:
		faults = append(faults, fault{message: fmt.Sprintf("must be a number, and is %s", typeName(got))})
	case got != reflect.Bool && got != reflect.Float64 && got != reflect.String:
		faults = append(faults, fault{message: "must be a number, text, true or false"})
	}
	return faults
}

func typeName(k reflect.Kind) string {
	switch k {
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	}
	return "a " + k.String()
}

type visitor func(*ast.Node)

func (f visitor) Visit(n *ast.Node) { f(n) }

// flattener turns host.cpu_usage_ratio from a look-up in a look-up into one name of a flat environment, notes what is
// read, and puts the config's values in place.
type flattener struct {
	scope
	reads []*field
}

func (f *flattener) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.IdentifierNode); ok {
		if field := f.bound(n.Value); field != nil {
			f.note(field)
		}
		return
	}
	m, ok := (*node).(*ast.MemberNode)
	if !ok {
		return
	}
	object, name := m.Node.(*ast.IdentifierNode).Value, m.Property.(*ast.StringNode).Value
	if object == "config" && f.settings != nil {
		f.settings[name] = true
	}
	var flat ast.Node
	if own, varies := f.varying[name]; object == "config" && varies {
		f.note(own)
		flat = &ast.IdentifierNode{Value: own.path}
	} else if object == "config" {
		flat = &ast.ConstantNode{Value: f.config[name]}
	} else {
		field := f.vocabulary[object+"."+name]
		f.note(field)
		flat = &ast.IdentifierNode{Value: field.path}
	}
	flat.SetNature(*m.Nature())
	ast.Patch(node, flat)
}

func (f *flattener) note(field *field) {
	if !slices.Contains(f.reads, field) {
		f.reads = append(f.reads, field)
	}
}

// finite reports whether a number may be used as a config value.
func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

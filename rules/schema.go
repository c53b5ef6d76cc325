package rules

import "maps"

// Schema is the JSON schema of a pack, for editors: it knows the keys and their forms. What expressions and PromQL mean only
// Load knows.
func Schema() map[string]any {
	type m = map[string]any
	str := func(about string) m { return m{"type": "string", "description": about} }
	form := func(pattern, about string) m { return m{"type": "string", "pattern": pattern, "description": about} }
	one := func(about string, of ...string) m { return m{"enum": of, "description": about} }
	list := func(of m) m { return m{"type": "array", "items": of} }
	object := func(required []string, properties m) m {
		out := m{"type": "object", "additionalProperties": false, "properties": properties}
		if len(required) > 0 {
			out["required"] = required
		}
		return out
	}
	scalar := m{"type": []string{"number", "string", "boolean"}}
	expression := func(about string) m {
		return m{"type": []string{"string", "boolean"}, "description": "an expr-lang expression: " + about}
	}
	duration := form(`^([0-9]+(ms|[smhdwy]))+$`, "as in Prometheus: 30s, 5m, 1h30m")
	share := m{"type": []string{"number", "string"}, "description": "a share of the host's capacity, or an expression over config"}
	kind := one("a kind of object", kindsOfRules()...)

	remedy := object([]string{"action"}, m{
		"action":       one("what is to be done", remedies()...),
		"cpu_below":    share,
		"memory_below": share,
		"apart_below":  share,
		"vcpus":        m{"type": []string{"number", "string"}, "description": "how many vCPUs right-size advises, an expression over what the rule reads"},
		"memory":       m{"type": []string{"number", "string"}, "description": "how many bytes of memory right-size advises, an expression over what the rule reads"},
		"webhook":      form(webhookName.String(), "the name of one of the agent's webhooks"),
	})
	rule := object([]string{"name", "on", "severity", "summary", "remedy"}, m{
		"name": form(ruleName.String(), "CamelCase"),
		"on":   kind,
		"with": m{
			"type": "object", "description": "names bound to PromQL, one sample an object",
			"propertyNames": m{"pattern": configName.String()}, "additionalProperties": str("PromQL"), "maxProperties": maxWith,
		},
		"when": expression("where it holds for as long as for says, there is a tip"),
		"on_alert": m{
			"type": "object", "description": "labels of an alert that is the condition, instead of when", "required": []string{"alertname"},
			"additionalProperties": str("the label's value"), "maxProperties": maxMatchers,
		},
		"for":      duration,
		"every":    duration,
		"clear":    expression("where it holds, the tip is over; default: when no longer does"),
		"severity": one("how bad it is", string(Critical), string(Warning), string(Info)),
		"summary":  str("one line, with expressions between {{ and }}"),
		"remedy":   remedy,
	})
	series := m{"type": "object", "additionalProperties": m{"type": []string{"string", "number"}, "description": "one value an interval: 0.9x3 _ 0.5"}}
	test := object([]string{"name", "want"}, m{
		"name":     str("what the test shows"),
		"interval": duration,
		"facts":    m{"type": "object", "additionalProperties": scalar},
		"samples":  series,
		"series":   series,
		"want": list(object([]string{"at", "tips"}, m{
			"at": duration,
			"tips": list(object([]string{"rule", "state"}, m{
				"rule": str("a rule of the pack"), "summary": str("what the tip says"),
				"state": one("of the tip", string(Pending), string(Active), string(Resolved), string(Unknown)),
			})),
		})),
	})
	join := object([]string{"on", "label", "field"}, m{
		"on": kind, "label": form(labelName.String(), "of the other exporter's series"),
		"field":   one("what the label holds of the object", "name", "uuid", "ip", "mac", "hostname"),
		"pattern": str("a regular expression with one group, which takes it out of the label"),
	})
	schema := object([]string{"pack", "version", "description", "rules"}, m{
		"pack":        form(packName.String(), "the pack's name"),
		"version":     form(semver.String(), "as 1.0.0"),
		"description": str("what it is for"),
		"platforms":   list(one("platforms it judges; default all", platforms...)),
		"min_protip":  form(semver.String(), "as 1.0.0"),
		"config": m{
			"type": "object", "description": "thresholds, which the agent's configuration may override",
			"propertyNames": m{"pattern": configName.String()}, "additionalProperties": scalar,
		},
		"join":  list(join),
		"rules": list(rule),
		"tests": list(test),
	})
	maps.Copy(schema, m{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "protip pack"})
	return schema
}

package dashboards

// Scenario is what happens in the demo that changes a panel's values. The checker holds panels to it: one whose values stay as they were, or
// are nothing but zero, is as good as empty.
type Scenario string

// What happens by itself.
const (
	AtStart   Scenario = "the start, when sources are listed" // of facts: they are there from then on, and not zero
	Sampling  Scenario = "every cycle"
	Load      Scenario = "the load of the VMs"
	Heat      Scenario = "the host that gets hot, and calm again after the migrations"
	Migration Scenario = "the migrations off the hot host"
	Tip       Scenario = "the tip, from pending to resolved"
)

// What somebody has to do there: with the vCenter's API, as its administrator, or with protip pause.
const (
	LostHost    Scenario = "a host that somebody disconnects from its vCenter"
	LostSession Scenario = "a session of protip's that an administrator ends"
	ForeignMove Scenario = "a VM that somebody else migrates"
	Pause       Scenario = "a pause"
)

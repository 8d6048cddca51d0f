package brokertest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// planted are the promises, by their beginnings, and for each a broker or store that breaks it.
var planted = []struct{ of, begins, fault string }{
	{"Broker", "All methods may be", "refuses a call while another one is running"},
	{"Broker", "A topic is any", "topics end at NUL"},
	{"Broker", "Data is any", "messages are lines"},
	{"Broker", "It returns the largest", "acknowledges more than MaxData and drops it"},
	{"Broker", "The hub calls MaxData", "asks the server for MaxData"},
	{"Broker.Publish", "Publish offers", "doesn't deliver to the publisher"},
	{"Broker.Publish", "It returns once", "returns nil while the broker is away"},
	{"Broker.Publish", "Data that one", "has an order for each publisher only"},
	{"Broker.Publish", "Publish must not", "keeps what is published"},
	{"Broker.Publish", "It waits no longer", "hangs while the broker is away"},
	{"Broker.Publish", "An error with", "rejects for good what comes while the broker is away"},
	{"Broker.Subscribe", "Subscribe returns", "subscribes a little later"},
	{"Broker.Subscribe", "ctx bounds", "ends the subscription with Subscribe's context"},
	{"Broker.Subscribe", "Messages are", "delivers two at a time"},
	{"Broker.Subscribe", "A topic may be", "one subscription a topic"},
	{"Broker.Subscribe", "A slow deliver", "one slow subscriber holds up the others"},
	{"Broker.Subscribe", "A subscription survives", "doesn't subscribe again"},
	{"Broker.Subscribe", "When messages", "swallows lost"},
	{"Broker.Subscribe", "It is called in order", "calls lost after the next message"},
	{"Broker.Subscribe", "When stop returns", "stop doesn't wait"},
	{"Broker.Subscribe", "stop may be", "each stop ends one more subscription to the topic"},

	{"Keeper", "What [Broker] says", "keeps 600 KiB of a message"},
	{"Keeper", "Positions are", "positions begin at 0"},
	{"Keeper", "A message has", "positions of what is kept differ from those of what comes"},
	{"Keeper", "No position comes again", "positions begin again when the data is lost"},
	{"Keeper.Keep", "Keep does what", "keeps half of n"},
	{"Keeper.Keep", "The broker may keep", "keeps any number"},
	{"Keeper.Keep", "What is kept", "keeps for ever"},
	{"Keeper.Keep", "Once Keep", "returns before it is kept"},
	{"Keeper.Keep", "What one goroutine", "positions fall"},
	{"Keeper.Keep", "Keep must not", "keeps the slice"},
	{"Keeper.Keep", "It waits no longer", "ignores Keep's context"},
	{"Keeper.Keep", "The hub may then", "keeps the same data once"},
	{"Keeper.Keep", "An error with", "rejects, and doesn't say so"},
	{"Keeper.Follow", "Follow is a", "begins with what comes"},
	{"Keeper.Follow", "It calls deliver", "begins with the newest"},
	{"Keeper.Follow", "deliver then", "waits for the first message"},
	{"Keeper.Follow", "From the first", "reads first, and subscribes after that"},
	{"Keeper.Follow", "If nothing is kept", "never calls live"},
	{"Keeper.Follow", "ctx bounds", "ends the follower with Follow's context"},
	{"Keeper.Follow", "A topic may be", "stop ends all followers of the topic"},
	{"Keeper.Follow", "A slow deliver", "one follower that is slow in live holds up the others"},
	{"Keeper.Follow", "If too much", "drops what comes while 200 messages wait for a follower"},
	{"Keeper.Follow", "A follower survives", "doesn't follow again"},
	{"Keeper.Follow", "If all messages", "goes on with the last 10 after an outage"},
	{"Keeper.Follow", "Otherwise lost", "doesn't notice what has been dropped"},
	{"Keeper.Follow", "deliver, live and lost", "delivers while live is running"},
	{"Keeper.Follow", "When stop returns", "stop doesn't wait"},
	{"Keeper.Follow", "stop may be", "each stop ends one more follower of the topic"},
	{"Keeper.Follow", "When Follow returns", "returns while deliver is running when its context ends"},

	{"PresenceStore", "PresenceStore keeps", "nodes aren't told apart"},
	{"PresenceStore", "Rooms, identities", "rooms are text"},
	{"PresenceStore", "All methods may be", "refuses a call while another one is running"},
	{"PresenceStore", "Each takes effect", "Enter looks, then enters"},
	{"PresenceStore", "A node's entries", "nothing lapses"},
	{"PresenceStore", "The methods do", "EnterAll answers in another order"},
	{"PresenceStore", "A hub passes", "EnterAll takes no more than 1000"},
	{"PresenceStore", "EnterInfo does", "with an info nobody is the first"},
	{"PresenceStore", "From then on", "the first info stays"},
	{"PresenceStore", "It does so until", "an info outlives its last node"},
	{"PresenceStore", "An empty info", "no info takes the info away"},
	{"PresenceStore", "changed reports", "each info is a change"},
	{"PresenceStore", "An info is", "infos are text"},
	{"PresenceStore", "No two entries", "EnterInfo takes no more than 900"},
	{"PresenceStore", "Infos returns", "Infos leaves out those that show nothing"},
	{"PresenceStore", "It returns, by room", "Entries has those of all nodes"},
	{"PresenceStore.Enter", "Enter adds", "nodes aren't told apart"},
	{"PresenceStore.Enter", "It reports", "Enter looks, then enters"},
	{"PresenceStore.Enter", "Entering again", "each Enter is the first"},
	{"PresenceStore.Exit", "Exit undoes", "Exit looks, then exits"},
	{"PresenceStore.Exit", "It reports", "who isn't there is the last"},
	{"PresenceStore.Identities", "Identities returns", "who is there by way of two nodes is listed twice"},
	{"PresenceStore.Identities", "It leaves out", "those of dead nodes are listed"},
	{"PresenceStore.Renew", "Renew leases", "leases last a millisecond"},
	{"PresenceStore.Renew", "held is false", "a lease is always held"},
	{"PresenceStore.Renew", "Renew also ends", "nothing lapses"},
	{"PresenceStore.Renew", "It returns", "nobody is told of a lapse"},
	{"PresenceStore.Renew", "Each is returned", "everyone is told of a lapse"},
	{"PresenceStore.Renew", "An error", "a Renew that runs out of time loses those whom it has found"},
	{"PresenceStore.Leave", "Leave ends", "Leave does nothing"},
	{"PresenceStore.Leave", "It returns", "Leave tells nothing"},
	{"PresenceStore.Leave", "What Renew's", "a Leave that runs out of time loses those whom it has found"},
}

// noPromises are the sentences, by their beginnings, that no broker or store can break, and why.
var noPromises = []struct{ of, begins, why string }{
	{"Broker", "Broker carries", "what it is"},
	{"Broker", "Its methods", "the compiler checks it"},
	{"Broker", "The conformance", "where the suite is"},
	{"Broker", "A Broker may have", "it may"},
	{"Broker", "A Broker may also", "it may"},
	{"Broker", "It is Subscribe", "what hubs do"},
	{"Broker", "They call no", "what hubs do"},
	{"Broker", "They may therefore", "it may"},
	{"Broker", "All else that", "it is the promises of Subscribe again: TestBrokenDirectBrokers"},
	{"Broker", "A hub uses", "what hubs do"},
	{"Broker", "So a type that", "what follows for those that embed brokers"},
	{"Broker", "The hub refuses", "what hubs do"},
	{"Broker.Publish", "While the broker", "it may"},
	{"Broker.Publish", "After an error", "it may"},
	{"Broker.Publish", "The hub may", "what hubs do"},
	{"Broker.Subscribe", "deliver must not", "what hubs do"},
	{"Broker.Subscribe", "It may be called", "it may"},
	{"Keeper", "Keeper is", "what it is"},
	{"Keeper", "WithHistory needs", "what hubs do"},
	{"Keeper", "The suite", "where the suite is"},
	{"Keeper", "Each kept message", "the signature says it"},
	{"Keeper", "All nodes use", "what hubs do"},
	{"Keeper", "If a topic is used", "what hubs don't do"},
	{"Keeper", "A Keeper may also", "it may"},
	{"Keeper", "It is Follow", "it is the promises of Follow again: TestBrokenDirectBrokers"},
	{"Keeper.Keep", "n and d are", "what hubs do"},
	{"Keeper.Keep", "If calls for", "it may"},
	{"Keeper.Keep", "While the broker", "it may"},
	{"Keeper.Keep", "After an error", "it may"},
	{"Keeper.Follow", "n is greater", "what hubs do"},
	{"Keeper.Follow", "deliver must not", "what hubs do"},
	{"Keeper.Follow", "Where the last", "it may"},
	{"Keeper.Follow", "If the connection", "it may"},
	{"PresenceStore", "A store has one", "how it is made: what breaks otherwise is other promises"},
	{"PresenceStore", "The conformance", "where the suite is"},
	{"PresenceStore", "A PresenceStore may", "it may"},
	{"PresenceStore", "Each entry is", "what hubs do"},
	{"PresenceStore", "After an error", "it may"},
	{"PresenceStore", "Without these", "what hubs do"},
	{"PresenceStore", "For [WithMemberInfo]", "it may"},
	{"PresenceStore", "A store that may", "it may"},
	{"PresenceStore", "The hub calls it", "what hubs do"},
	{"PresenceStore.Renew", "That may be", "it may"},
}

// TestEveryPromiseIsChecked: each sentence of the doc comments is a promise of which the suite's failures
// speak, with checks that hold it and a broken broker or store that they find; or it says why it is none.
func TestEveryPromiseIsChecked(t *testing.T) {
	said := map[string][]string{}
	read(t, "../../nodes.go", said, "Broker", "PresenceStore")
	read(t, "../../history.go", said, "Keeper")
	promises := slices.Concat(brokerPromises, keeperPromises, presencePromises)
	used := make([]bool, len(noPromises))
	for of, sentences := range said {
		for _, s := range sentences {
			isPromise := slices.ContainsFunc(promises, func(p promise) bool { return p.of == of && p.says == s })
			isNone := false
			for i, n := range noPromises {
				if n.of == of && strings.HasPrefix(s, n.begins) {
					isNone, used[i] = true, true
				}
			}
			if isPromise == isNone {
				t.Errorf("the doc comment of %s says %q: put it into the table of promises, or say once why it is none", of, s)
			}
		}
	}
	for i, n := range noPromises {
		if !used[i] {
			t.Errorf("the doc comment of %s says nothing that begins with %q", n.of, n.begins)
		}
	}
	for _, p := range promises {
		if !slices.Contains(said[p.of], p.says) {
			t.Errorf("the doc comment of %s doesn't say %q", p.of, p.says)
		}
		if p.mend == "" || strings.HasSuffix(p.mend, ".") {
			t.Errorf("how to mend %q is %q", p.says, p.mend)
		}
		p.mustBePlanted(t)
	}
}

// mustBePlanted checks that a fault breaks the promise, which one of its checks finds.
func (p promise) mustBePlanted(t *testing.T) {
	t.Helper()
	for _, pl := range planted {
		if pl.of != p.of || !strings.HasPrefix(p.says, pl.begins) {
			continue
		}
		if !slices.ContainsFunc(strings.Fields(foundBy(p.of, pl.fault)), func(check string) bool {
			return slices.Contains(strings.Fields(p.checks), check)
		}) {
			t.Errorf("the fault %q is found by none of the checks of %q", pl.fault, p.says)
		}
		return
	}
	t.Errorf("no fault is planted for %q", p.says)
}

// foundBy returns the checks that find a fault, or "".
func foundBy(of, name string) string {
	if strings.HasPrefix(of, "PresenceStore") {
		for _, f := range brokenStores {
			if f.fault == name {
				return f.checks
			}
		}
		return ""
	}
	faults := brokenBrokers
	if strings.HasPrefix(of, "Keeper") {
		faults = slices.Concat(brokenPasts, brokenPositions, brokenCalls, brokenReturns, brokenKeeps)
	}
	for _, f := range faults {
		if f.fault == name {
			return f.checks
		}
	}
	return ""
}

// TestEveryCheckHoldsAPromise: the table names no check that isn't there, and each check stands in it and
// finds a fault. A check holds few promises, so that its failure says which is broken.
func TestEveryCheckHoldsAPromise(t *testing.T) {
	var names []string
	note := func(name string, kept bool) {
		names = append(names, name)
		if n := len(promisesOf(name, kept)); n == 0 || n > 4 {
			t.Errorf("%s holds %d promises", name, n)
		}
	}
	for _, c := range slices.Concat(deliveryChecks, outageChecks, allKeeperChecks()) {
		note(c.name, c.kept)
	}
	for _, c := range presenceChecks {
		note(c.name, false)
	}

	found := ""
	for _, f := range slices.Concat(brokenBrokers, brokenPasts, brokenPositions, brokenCalls, brokenReturns, brokenKeeps) {
		found += " " + f.checks
	}
	for _, f := range brokenStores {
		found += " " + f.checks
	}
	for _, name := range names {
		if !slices.Contains(strings.Fields(found), name) {
			t.Errorf("no fault is planted that %s finds", name)
		}
	}
	for _, p := range slices.Concat(brokerPromises, keeperPromises, presencePromises) {
		for name := range strings.FieldsSeq(p.checks) {
			if !slices.Contains(names, name) {
				t.Errorf("there is no check %s", name)
			}
		}
	}
}

// read notes the sentences of the doc comments of interfaces and of their methods.
func read(t *testing.T, path string, said map[string][]string, names ...string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			continue
		}
		spec := decl.Specs[0].(*ast.TypeSpec)
		methods, ok := spec.Type.(*ast.InterfaceType)
		if !ok || !slices.Contains(names, spec.Name.Name) {
			continue
		}
		said[spec.Name.Name] = sentences(decl.Doc.Text())
		for _, m := range methods.Methods.List {
			said[spec.Name.Name+"."+m.Names[0].Name] = sentences(m.Doc.Text())
		}
	}
}

// sentences splits a comment. What is indented, which is code, goes.
func sentences(text string) (all []string) {
	var prose []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "\t") {
			prose = append(prose, strings.Fields(line)...)
		} else if n := len(prose); n > 0 && strings.HasSuffix(prose[n-1], ":") {
			prose[n-1] += "."
		}
	}
	for s := range strings.SplitSeq(strings.Join(prose, " "), ". ") {
		all = append(all, strings.TrimSuffix(s, ".")+".")
	}
	return all
}

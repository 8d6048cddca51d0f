package brokertest

import (
	"slices"
	"strings"
	"testing"
)

// promise is a sentence of the doc comment of an interface or a method, how to mend a broker or store that
// breaks it, and the checks that find that.
type promise struct {
	of, says, mend, checks string
}

// explain says which promises are broken where a check has failed. kept says that it was one of Keep and
// Follow.
func explain(t testing.TB, check string, kept bool) {
	if !t.Failed() {
		return
	}
	t.Helper()
	for _, p := range promisesOf(check, kept) {
		t.Error(p.String())
	}
}

func (p promise) String() string {
	return "wsroom." + p.of + " promises: “" + p.says + "” To mend it, " + p.mend + "."
}

// promisesOf returns the promises that a check holds. A check of Keep and Follow holds those of a Broker,
// unless it holds some of a Keeper.
func promisesOf(check string, kept bool) (all []promise) {
	if kept {
		all = holding(check, keeperPromises)
	}
	if len(all) == 0 {
		all = holding(check, slices.Concat(brokerPromises, presencePromises))
	}
	return all
}

func holding(check string, promises []promise) (all []promise) {
	for _, p := range promises {
		if slices.Contains(strings.Fields(p.checks), check) {
			all = append(all, p)
		}
	}
	return all
}

var brokerPromises = []promise{
	{
		"Broker", "All methods may be called concurrently.",
		"guard what the methods share, and refuse no call because another one is running",
		"ConcurrentUse",
	},
	{
		"Broker",
		"A topic is any non-empty string of up to 600 bytes; NUL and bytes that aren't UTF-8 are allowed.",
		"encode topics where the server's names are text, are patterns or are shorter: in hexadecimal, or " +
			"as a hash",
		"AnyName",
	},
	{
		"Broker", "Data is any bytes.",
		"send data as bytes with its length, not as text or lines; where the server takes less at a time, " +
			"cut it up or keep it aside",
		"AnyData SameDataAgain",
	},
	{
		"Broker", "It returns the largest number of bytes that Publish takes.",
		"have Publish take data of up to MaxData bytes; for more it returns an error, or delivers it",
		"AnyData TooMuchData",
	},
	{
		"Broker", "The hub calls MaxData for each send, so it mustn't wait.",
		"return a number that is known without asking the server",
		"PublishWhileAway",
	},
	{
		"Broker.Publish",
		"Publish offers data to every subscriber of the topic, those in this process included.",
		"deliver what comes back from the server to each subscription, the publishing node's own as well, " +
			"and each time also where data is the same",
		"AllNodesHear SameDataAgain ManyTopics",
	},
	{
		"Broker.Publish", "It returns once the broker has the data.",
		"wait for the server's answer, and return the error where there is none",
		"PublishWhileAway AllNodesHear",
	},
	{
		"Broker.Publish",
		"Data that one goroutine publishes to a topic arrives in that order, and all subscribers see the " +
			"same order.",
		"let one place order a topic's messages: the server, one stream or one row; and don't reorder " +
			"them in pools of connections or goroutines",
		"OneOrder StopUnderLoad",
	},
	{
		"Broker.Publish", "Publish must not keep data.",
		"copy data before Publish returns, if it is used later",
		"AllNodesHear AnyData",
	},
	{
		"Broker.Publish", "It waits no longer than ctx allows, also for a broker that is away.",
		"select on ctx.Done beside each wait: for a connection, for a lock, for the answer",
		"PublishWhileAway ServerHangs ContextEnds",
	},
	{
		"Broker.Publish",
		"An error with a method Rejected() bool that returns true says that this data can never be " +
			"published.",
		"say Rejected only of data that is wrong by itself, such as too large; an outage is another error",
		"PublishWhileAway",
	},
	{
		"Broker.Subscribe", "Subscribe returns once messages published from now on will be delivered.",
		"wait for the server's answer to the subscription before Subscribe returns",
		"SubscribedMeansDelivered",
	},
	{
		"Broker.Subscribe", "ctx bounds only that wait.",
		"give the subscription a context of its own, and end Subscribe with an error, leaving nothing " +
			"behind, where ctx ends first",
		"ContextEnds SubscribeWhileAway ServerHangs",
	},
	{
		"Broker.Subscribe", "Messages are delivered one at a time, in the topic's order.",
		"call deliver from one goroutine for each subscription",
		"OneOrder",
	},
	{
		"Broker.Subscribe", "A topic may be subscribed to several times.",
		"keep a list of subscriptions for each topic, and unsubscribe from the server with the last of " +
			"them",
		"SeveralSubscriptions",
	},
	{
		"Broker.Subscribe", "A slow deliver holds up no other subscription.",
		"give each subscription a queue of its own; where it is full drop what comes, and call lost in " +
			"its place",
		"SlowSubscriber",
	},
	{
		"Broker.Subscribe", "A subscription survives a reconnect.",
		"subscribe to all topics again on the new connection, but not to those that were stopped",
		"LostThenDelivered StopWhileAway OneNodeIsCutOff ServerHangs",
	},
	{
		"Broker.Subscribe",
		"When messages may have been missed, lost is called once the topic is subscribed to again.",
		"call lost of each subscription after each reconnect, when the server has answered that it is " +
			"subscribed",
		"LostThenDelivered EveryGapIsReported OneNodeIsCutOff StopWhileAway",
	},
	{
		"Broker.Subscribe", "It is called in order with the deliveries, and never at the same time as deliver.",
		"put lost into the queue of the messages, in the place of those that are missing",
		"EveryGapIsReported OneNodeIsCutOff",
	},
	{
		"Broker.Subscribe", "When stop returns, deliver and lost are not running and won't run again.",
		"have stop wait for a call that is running, and check that the subscription isn't stopped before " +
			"each call",
		"StopMeansStopped StopUnderLoad StopWhileAway",
	},
	{
		"Broker.Subscribe", "stop may be called more than once, but not from deliver or lost.",
		"have a second stop do nothing but wait",
		"SeveralSubscriptions StopMeansStopped",
	},
}

var keeperPromises = []promise{
	{
		"Keeper", "What [Broker] says of topics, data, MaxData and concurrency holds for these methods, too.",
		"use the same encoding for what is kept as for what is published",
		"AnyNameIsKept AnyDataIsKept",
	},
	{
		"Keeper", "Positions are greater than 0 and rise within a topic, in steps of any size.",
		"let the server number a topic's messages in the order in which they are kept, from 1 or from a " +
			"clock",
		"NothingKept OnePositionForAll",
	},
	{
		"Keeper", "A message has the same position for all followers, whether they hear it at once or later.",
		"send the position with the message and keep it with the message, and don't count in the node",
		"OnePositionForAll",
	},
	{
		"Keeper",
		"No position comes again on its topic, whatever becomes of the broker's data: after a restart, a " +
			"failover or the loss of all data, new messages have higher positions than all that any follower " +
			"has seen.",
		"begin a topic's numbers with a clock, or take them from a counter that isn't lost with the data",
		"WipedWhileCutOff WipedWhileFollowing KeepsForATime",
	},
	{
		"Keeper.Keep",
		"Keep does what Publish does, for the topic's followers, and has data kept until n newer messages " +
			"are on the topic or d has passed, whichever is first.",
		"drop a message only when n newer ones are there or d has passed, and pass each on to the " +
			"followers at once",
		"KeepsTheLast KeepsForATime AllNodesHear",
	},
	{
		"Keeper.Keep", "The broker may keep some more, and for somewhat longer.",
		"drop what has n newer ones with each Keep, or after some; a block at a time is enough",
		"KeepsTheLast",
	},
	{
		"Keeper.Keep", "What is kept of a topic ends by itself, also if the topic gets no more messages.",
		"have the server expire what is kept, or have the nodes sweep",
		"KeepsForATime",
	},
	{
		"Keeper.Keep",
		"Once Keep has returned nil, each call of Follow that begins afterwards, on any node, finds data " +
			"as long as it is kept.",
		"wait for the server's answer that the message is kept, and read from the server that has " +
			"answered",
		"NothingKept",
	},
	{
		"Keeper.Keep", "What one goroutine keeps on a topic has rising positions.",
		"number a message and pass it on in one step of the server: one script, or one transaction that " +
			"holds a lock of the topic",
		"OneOrder OnePositionForAll",
	},
	{
		"Keeper.Keep", "Keep must not keep the slice.",
		"copy data before Keep returns, if it is used later",
		"AllNodesHear AnyData",
	},
	{
		"Keeper.Keep", "It waits no longer than ctx allows.",
		"select on ctx.Done beside each wait: for a connection, for a lock, for the answer",
		"ContextEnds ServerHangs PublishWhileAway",
	},
	{
		"Keeper.Keep", "The hub may then keep it again, which is one more message with a position of its own.",
		"don't leave out data because the same is there already",
		"SameDataAgain",
	},
	{
		"Keeper.Keep",
		"An error with a method Rejected() bool that returns true says that this data can never be kept.",
		"return from Keep the error that Publish returns",
		"KeepRejects",
	},
	{
		"Keeper.Follow", "Follow is a Subscribe that begins with what is kept.",
		"subscribe first, then read what is kept, and then call deliver and live",
		"PastThenLive ManyPasts FollowWhileCutOff",
	},
	{
		"Keeper.Follow",
		"It calls deliver for the last messages that are kept, at most n, oldest first, and calls live " +
			"once.",
		"read the last n from the end, turn them around, and read on where the server gives them in " +
			"parts; call live after them, and not again after a reconnect",
		"PastThenLive BeginsWithTheLast LongPast FollowerCutOff",
	},
	{
		"Keeper.Follow", "deliver then goes on with what is kept from then on, and Follow returns.",
		"return when live has returned, and don't wait for a message",
		"NothingKept FollowWaitsForLive",
	},
	{
		"Keeper.Follow", "From the first message delivered on, none is left out and none comes twice.",
		"subscribe before reading, hold back what comes meanwhile, and leave out of it what has been " +
			"read, by its position",
		"PastThenLive BeginsWithTheLast KeepsTheLast",
	},
	{
		"Keeper.Follow", "If nothing is kept, live is called first.",
		"call live also where the read finds nothing",
		"NothingKept",
	},
	{
		"Keeper.Follow",
		"ctx bounds only the wait until Follow returns, which includes the time that deliver and live " +
			"take.",
		"give the follower a context of its own; where ctx ends first, stop it, wait for a running call, " +
			"and return the error",
		"ContextEnds FollowContextEnds ServerHangs SubscribeWhileAway FollowWhileCutOff",
	},
	{
		"Keeper.Follow", "A topic may be followed several times.",
		"give each follower a past and an end of its own",
		"SeveralSubscriptions BeginsWithTheLast StopUnderLoad",
	},
	{
		"Keeper.Follow", "A slow deliver holds up no other follower and no subscription.",
		"give each follower a queue and a goroutine of its own, from its past on",
		"SlowInThePast SlowSubscriber",
	},
	{
		"Keeper.Follow",
		"If too much waits for it after live, some may be left out, and lost is called in its place.",
		"where a follower's queue is full read again later, or put lost in the place of what is dropped",
		"SlowSubscriber",
	},
	{
		"Keeper.Follow", "A follower survives a reconnect.",
		"subscribe to all topics again on the new connection, but not for those that were stopped",
		"FollowerCutOff StopFollowingWhileAway CutOftenWhileFollowing WipedWhileFollowing ServerHangs",
	},
	{
		"Keeper.Follow",
		"If all messages that it has missed are still kept, deliver goes on with them, even if they are " +
			"more than n, and lost isn't called.",
		"after a reconnect read on from the last position delivered until there is no more, and compare " +
			"the first that is read with that position",
		"FollowerCutOff MuchIsMissed CutOffBeforeTheFirst NoSilentHole CutOftenWhileFollowing",
	},
	{
		"Keeper.Follow",
		"Otherwise lost is called in the place of those that are gone, once the topic is followed again; " +
			"deliver then goes on with the oldest message after that place that is still kept.",
		"after a reconnect compare what is kept with the last position delivered; where something between " +
			"may be gone, call lost and then deliver from the oldest on",
		"TrimmedWhileCutOff WipedWhileCutOff NoSilentHole WipedWhileFollowing",
	},
	{
		"Keeper.Follow", "deliver, live and lost are called one at a time.",
		"call them from one goroutine for each follower",
		"FollowWaitsForLive OneOrder",
	},
	{
		"Keeper.Follow", "When stop returns, none of them is running and none will run again.",
		"have stop wait for a call that is running, and check that the follower isn't stopped before each " +
			"call",
		"StopMeansStopped StopUnderLoad StopFollowingWhileAway",
	},
	{
		"Keeper.Follow", "stop may be called more than once, but not from one of them.",
		"have a second stop do nothing but wait",
		"SeveralSubscriptions",
	},
	{
		"Keeper.Follow",
		"When Follow returns an error, none of them is running and none will run again; some may have " +
			"run.",
		"stop the follower before Follow returns the error, as stop does",
		"FollowContextEnds SubscribeWhileAway",
	},
}

var presencePromises = []promise{
	{
		"PresenceStore",
		"PresenceStore keeps the presence of all nodes: for each room, the identities in it and the nodes " +
			"through which each is there.",
		"keep an entry for each room, identity and node",
		"ManyEntries Listed",
	},
	{
		"PresenceStore", "Rooms, identities and nodes are any non-empty strings.",
		"keep names as bytes, and put lengths before them where they are joined into a key",
		"AnyPresenceName",
	},
	{
		"PresenceStore", "All methods may be called concurrently.",
		"guard what the methods share, and refuse no call because another one is running",
		"OneOfManyIsFirst OneOfManyIsLast OneOfManyLeaves",
	},
	{
		"PresenceStore", "Each takes effect as a whole, except where its comment says otherwise.",
		"look and change in one step: one script, or one transaction under a lock",
		"OneOfManyIsFirst OneOfManyIsLast OneOfManyLeaves",
	},
	{
		"PresenceStore", "A node's entries are leased: they lapse when the node doesn't renew the lease.",
		"keep for each node until when its lease lasts, by one clock",
		"LapseIsFoundOnce LapsedNodeIsTold",
	},
	{
		"PresenceStore",
		"The methods do what Enter and Exit do for each entry, and return those results in the order of " +
			"entries.",
		"answer for each entry by itself, at its place",
		"ManyAtOnce",
	},
	{
		"PresenceStore", "A hub passes up to 1,000 entries at a time and allows 5 s for a call.",
		"take all entries, in several calls of the server if need be",
		"ManyAtOnce",
	},
	{
		"PresenceStore",
		"EnterInfo does for each entry, which is a room, an identity and an info, what Enter does.",
		"enter as Enter does, and answer whether the identity is the first",
		"InfosEnd ManyInfos",
	},
	{
		"PresenceStore",
		"From then on the identity shows that info in the room, whatever it has shown through other " +
			"nodes: the latest call counts.",
		"keep one info for each room and identity, and overwrite it",
		"Infos",
	},
	{
		"PresenceStore", "It does so until it is in the room through no node any more.",
		"delete the info in the same step as the last entry, and not before: in Exit, in Leave and when a " +
			"lease lapses",
		"InfosEnd",
	},
	{
		"PresenceStore", "An empty info leaves what the identity shows.",
		"leave out empty infos when infos are stored",
		"Infos",
	},
	{
		"PresenceStore",
		"changed reports, in the order of entries, whether the identity was in the room and the info " +
			"isn't what it has shown.",
		"compare with the info that was there before; a first entry is no change, nor is an empty info",
		"Infos ManyInfos",
	},
	{
		"PresenceStore", "An info is up to 4 KiB of any bytes.",
		"keep infos as bytes, not as text",
		"ManyInfos",
	},
	{
		"PresenceStore",
		"No two entries are of the same room and identity, and there are as many as for EnterAll.",
		"take 1,000 entries with an info each, in several calls of the server if need be",
		"ManyInfos",
	},
	{
		"PresenceStore",
		`Infos returns the identities that Identities returns, and what each shows, "" for nothing.`,
		"begin with the identities that Identities returns, and add to each what it shows in that room",
		"Infos InfosEnd",
	},
	{
		"PresenceStore",
		"It returns, by room, the identities that are there through node, as Identities and Renew would " +
			"find them.",
		"read the entries of that node alone, from where the other methods read them",
		"EntriesOfANode",
	},
	{
		"PresenceStore.Enter", "Enter adds node to the nodes through which identity is in the room.",
		"add an entry of the room, the identity and the node",
		"Listed",
	},
	{
		"PresenceStore.Enter", "It reports whether node is the first of them.",
		"look for entries of other nodes and add the entry in one step",
		"FirstAndLast OneOfManyIsFirst",
	},
	{
		"PresenceStore.Enter", "Entering again is harmless and isn't the first.",
		"report the first only where there was no entry, the node's own included",
		"FirstAndLast",
	},
	{
		"PresenceStore.Exit", "Exit undoes Enter and reports whether node was the last.",
		"delete the entry and look for entries of other nodes in one step",
		"FirstAndLast OneOfManyIsLast",
	},
	{
		"PresenceStore.Exit", "It reports false if identity wasn't in the room through node.",
		"report the last only where the node's own entry was there",
		"FirstAndLast LapsedNodeComesBack",
	},
	{
		"PresenceStore.Identities", "Identities returns the identities in the room, each once, in any order.",
		"leave out of the entries of the room those of the same identity",
		"AnyPresenceName Listed",
	},
	{
		"PresenceStore.Identities",
		"It leaves out an identity that is there only through nodes whose lease has lapsed, whether or " +
			"not a Renew has ended their entries.",
		"compare the leases with the clock in each read",
		"LapsedAreNotListed",
	},
	{
		"PresenceStore.Renew", "Renew leases node's entries for ttl from now.",
		"set the end of the node's lease to now, by the clock of the store, and ttl",
		"LapsedAreNotListed",
	},
	{
		"PresenceStore.Renew",
		"held is false if node had no lease, because it is new or because the lease has lapsed; the node " +
			"then enters its members again.",
		"return whether there was a lease of that node that had not lapsed, and of which a Renew has been " +
			"told",
		"LapsedNodeIsTold LapsedNodeComesBack Leave",
	},
	{
		"PresenceStore.Renew", "Renew also ends the entries of nodes whose lease has lapsed.",
		"delete the entries and the lease of each node whose lease has lapsed, the renewing one's " +
			"included",
		"LapseIsFoundOnce LapsedNodeIsTold LapsedNodeComesBack",
	},
	{
		"PresenceStore.Renew", "It returns, by room, the identities that were there through such nodes only.",
		"return of the deleted entries those whose identity is in the room through no other node",
		"LapseIsFoundOnce LapsedNodeIsTold",
	},
	{
		"PresenceStore.Renew", "Each is returned to one caller only.",
		"delete and return in one step, so that a second caller finds nothing",
		"LapseIsFoundOnce BrokenRenewal",
	},
	{
		"PresenceStore.Renew",
		"An error, for example when ctx ends meanwhile, loses none of them: those already removed are " +
			"returned with the error or by a later Renew.",
		"keep those who have left until the caller has said that it has the answer, and return them again " +
			"until then",
		"BrokenRenewal PresenceContextEnds",
	},
	{
		"PresenceStore.Leave", "Leave ends all of node's entries and its lease at once.",
		"delete the node's entries and its lease in one step",
		"Leave ManyEntries AnyPresenceName",
	},
	{
		"PresenceStore.Leave", "It returns, by room, the identities that were there through no other node.",
		"return of the deleted entries those whose identity is in the room through no other node",
		"Leave ManyEntries OneOfManyLeaves",
	},
	{
		"PresenceStore.Leave", "What Renew's comment says about errors holds for Leave, too.",
		"keep those who have left until the caller has said that it has the answer; else have another " +
			"node's Renew return them",
		"BrokenLeave",
	},
}

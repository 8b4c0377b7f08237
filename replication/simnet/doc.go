// Package simnet is a network and a clock for simulations. Everything happens in one goroutine, in
// virtual time, in an order that the seed decides: what is simulated on it does exactly the same
// again for the same seed, which Hash proves.
//
// A [Net] is a queue of events by time. [Net.After] adds one, [Net.Run] takes them out until a
// moment. [Net.Send] is an event too, the delivery of a message, and it meets what a network does
// to messages: it is late, lost, doubled, overtaken, or never gets through because the two ends
// are cut off from each other, in both directions or in one.
//
//	n := simnet.New(seed)
//	n.Cut("a", "b")                     // what a sends does not reach b
//	n.Send("b", "a", msg, func(msg []byte) { ... })
//	n.Run(time.Minute)
//
// Nodes that crash or stop are the business of the simulation: it drops or keeps what arrives.
package simnet

// Package lostquorum decides how groups go on that have lost a majority of their members for good:
// from what the stopped nodes have that are left, as values.
//
// You are here: below package cluster, which takes surveys of data directories and carries a plan
// out; above nothing. The package touches no disk and no network. All survivors decide for
// themselves, one after the other and on machines that need not reach each other, from the same
// surveys, and come to the same.
//
//	survey.go  what a stopped node has
//	plan.go    which groups have no majority any more, with whose log each goes on, what may be lost
//
// # Why a plan is safe
//
// A group goes on with the log that an election among the survivors would choose: that of the
// highest last term and, of those, the highest last index (Raft, section 5.4.1). It has every entry
// that any survivor knows to be committed. For let an entry be committed in term t at index i. The
// leader of each later term has it, and a log whose last entry is of term u is the beginning of
// that leader's log up to there. If u > t that reaches beyond i, where entries of u begin; if u =
// t it does for the log that has index i or a higher one. So no survivor has to take back what it
// has applied.
//
// That log gets one more entry, a configuration of the survivors alone, in a term that is far above
// all that the survivors know of (TermGap). In the words of Raft its member was elected in that
// term and has appended an entry. The other survivors' logs stay as they are; the leader overrules
// them where they differ, as any leader does.
//
// A survivor that could be elected by the survivors under the configuration that it has itself says
// that the group has a majority: nothing is done about such a group.
//
// What was lost stays lost: an entry that was acknowledged was at a majority, and may have been at
// none of the survivors. Nobody can say how many there were.
package lostquorum

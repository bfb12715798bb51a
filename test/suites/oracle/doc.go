// Package oracle holds what a real Kafka answers to odd requests, and asks Trimaran
// the same.
//
// You are here: beside the other tests of the whole product. A case is a few requests
// on a connection of its own. What Kafka answered to them is in testdata, one file for
// a suite, and the test compares what Trimaran answers, without Kafka. `make oracle`
// asks both and writes the files anew; it needs Java and Maven.
//
// # The files
//
// A case begins with "= " and its name. A line with two blanks in front is what both
// answer, one with "- " is Kafka's alone, one with "+ " Trimaran's alone. Where the two
// differ there must be a line "# because " behind the difference which says why it is on
// purpose. `make oracle` keeps these reasons; for a new difference it writes one that is
// empty, and the test fails until it is filled in or Trimaran mended.
//
// # A new case
//
// Add a Case to a suite in one of the files suite_*.go (or a suite to Suites) and run
// `make oracle`, or `make oracle ORACLE='-suite NAME'` for one suite. A case gets a T:
//
//	{"create: a name that is taken", func(t *T) {
//		topic := t.Topic()               // created for this case
//		req := kmsg.NewPtrCreateTopicsRequest()
//		req.Version = 5
//		...
//		t.Do(req, "Configs")              // sent; the answer is written down, without Configs
//	}},
//
// T.Do takes any request of package kmsg and writes down every field of the answer but
// those that cannot be the same twice (see volatile). T.Produce and T.Records are
// shorthands for one partition. Bytes that no client library would make are put together
// in batches.go and codecs.go; Raw sends a request that is no request.
//
// In a suite that is Secured clients have to log in and are judged by ACLs. There a case may do
// everything, until T.As has it go on as a user (T.User, T.Allow).
//
// The cases of a suite run beside each other against one broker, each with topics and
// groups of its own (T.Name). A node of Trimaran stands for the broker: there is one of
// each, with the configuration of brokerConfigs and nodeFlags.
package oracle

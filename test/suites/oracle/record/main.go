// Record asks a real Kafka and this Trimaran what package oracle asks, and writes
// their answers into its testdata. It needs java and mvn: Kafka's jars come from Maven's
// repository into a cache folder (TRIMARAN_INTEROP_CACHE).
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/suites/oracle"
)

func main() {
	suite := flag.String("suite", "", "only this suite")
	flag.Parse()
	if err := record(*suite); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func record(only string) (err error) {
	defer harness.RemoveBinaries()
	nodes := map[bool]*harness.Cluster{} // by Secured
	for secured, options := range map[bool]harness.Options{false: oracle.NodeOptions(), true: oracle.SecuredOptions()} {
		c, err := harness.Start(options)
		if c != nil {
			defer c.Close()
		}
		if err != nil {
			return err
		}
		nodes[secured] = c
	}
	type kind struct {
		version string
		secured bool
	}
	kafkas := map[kind]*oracle.Kafka{}
	defer func() {
		for _, k := range kafkas {
			k.Close()
		}
	}()
	for _, s := range oracle.Suites {
		if only != "" && s.Name != only {
			continue
		}
		of := kind{s.Kafka, s.Secured}
		k := kafkas[of]
		if k == nil {
			if k, err = oracle.StartKafka(s.Kafka, s.Secured); err != nil {
				return fmt.Errorf("with Kafka %s: %w", s.Kafka, err)
			}
			kafkas[of] = k
		}
		theirs, err := s.Answers(k.Broker)
		if err != nil {
			return fmt.Errorf("with Kafka %s: %w", s.Kafka, err)
		}
		ours, err := s.Answers(oracle.Of(nodes[s.Secured].Node(1)))
		if err != nil {
			return fmt.Errorf("with Trimaran: %w", err)
		}
		unexplained, err := s.Write(theirs, ours)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d cases, %d differences without a reason\n", s.Path(), len(s.Cases), unexplained)
	}
	return nil
}

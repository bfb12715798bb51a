package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/tools/interop/clients/line"
)

// securedRows are those that need a cluster whose clients log in: Kafka's tools and the admin
// clients of Java and franz-go, with users and ACLs.
func securedRows() []row {
	tool := func(name string, run func(context.Context, *attempt) error) row {
		return row{name: name, version: toolsVersion, mode: "default", prepare: (*preparer).tools, run: run, secured: true}
	}
	java := func(version string) row {
		return row{name: "java security " + version, version: version, mode: "default", prepare: (*preparer).java, secured: true,
			run: func(ctx context.Context, a *attempt) error {
				if err := a.as(adminUser); err != nil {
					return err
				}
				a.command = append([]string{}, a.command[:len(a.command)-1]...)
				_, err := a.tool(ctx, "", "Security", a.bootstrap(a.way, nil), a.topic)
				return err
			}}
	}
	return []row{
		tool("kafka-acls", aclsTool),
		tool("kafka-configs users", usersTool),
		tool("kafka-console-clients and ACLs", deniedConsoles),
		tool("kafka-topics and ACLs", deniedTopics),
		java("3.9.2"),
		java("4.4.0"),
		{name: "kadm security", version: "1.19.0", mode: "default", run: kadmSecurity, secured: true,
			prepare: func(*preparer, context.Context, row) (program, error) { return program{}, nil }},
	}
}

// securedScript is a script whose tools log in as that user.
func (a *attempt) securedScript(ctx context.Context, user string) *script {
	s := &script{ctx: ctx, attempt: a}
	s.config, s.err = a.toolConfig(user)
	return s
}

// toolConfig writes what --command-config names.
func (a *attempt) toolConfig(user string) (string, error) {
	if err := os.MkdirAll(a.dir, 0o777); err != nil {
		return "", err
	}
	file := filepath.Join(a.dir, user+".properties")
	return file, os.WriteFile(file, fmt.Appendf(nil, `security.protocol=SASL_SSL
ssl.truststore.type=PEM
ssl.truststore.location=%s
sasl.mechanism=%s
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="%s" password="%s";
`, filepath.Join(a.guard.dir, "ca.crt"), a.mechanism, user, a.guard.password(user)), 0o600)
}

const aclCommand = "org.apache.kafka.tools.AclCommand"

// without wants none of the texts in what a tool says.
func (s *script) without(class, args string, unwanted ...string) {
	out := s.run(class, args)
	for _, u := range unwanted {
		if s.err == nil && strings.Contains(out, u) {
			s.err = fmt.Errorf("%s %s says %q: %.300q", class, args, u, out)
		}
	}
}

func aclsTool(ctx context.Context, a *attempt) error {
	s, t := a.securedScript(ctx, adminUser), a.topic
	const bob = "(principal=User:bob, host=*, operation=READ, permissionType=ALLOW)"
	const carol = "(principal=User:carol, host=10.0.0.1, operation=WRITE, permissionType=DENY)"
	s.run(aclCommand, "--add --allow-principal User:bob --operation Read --topic "+t, "Adding ACLs")
	s.run(aclCommand, "--list --topic "+t, "patternType=LITERAL", bob)
	s.run(aclCommand, "--add --deny-principal User:carol --deny-host 10.0.0.1 --operation Write --resource-pattern-type prefixed --topic "+t+"-", carol)
	s.without(aclCommand, "--list --topic "+t+"-x", carol)
	s.run(aclCommand, "--list --resource-pattern-type match --topic "+t+"-x", "patternType=PREFIXED", carol)
	s.run(aclCommand, "--list --principal User:bob", bob)
	s.run(aclCommand, "--add --allow-principal User:dave --producer --topic "+t+" --transactional-id "+t, "operation=WRITE", "operation=CREATE")
	s.run(aclCommand, "--add --allow-principal User:dave --consumer --topic "+t+" --group "+t, "ResourcePattern(resourceType=GROUP")
	s.run(aclCommand, "--add --allow-principal User:dave --operation Create --cluster", "name=kafka-cluster")
	s.run(aclCommand, "--list --cluster", "principal=User:dave, host=*, operation=CREATE")
	s.refuse(aclCommand, "--add --allow-principal User:dave --allow-host kafka.example --operation Read --topic "+t, "kafka.example")
	s.run(aclCommand, "--remove --force --allow-principal User:bob --operation Read --topic "+t)
	s.without(aclCommand, "--list --topic "+t, bob)
	s.run(aclCommand, "--remove --force --resource-pattern-type prefixed --topic "+t+"-")
	s.without(aclCommand, "--list --resource-pattern-type any", carol)
	s.run(aclCommand, "--remove --force --topic "+t)
	s.run(aclCommand, "--remove --force --group "+t)
	s.run(aclCommand, "--remove --force --allow-principal User:dave --operation Create --cluster")
	s.without(aclCommand, "--list --topic "+t, "User:dave")
	s.as(rightUser)
	s.refuse(aclCommand, "--list", "ClusterAuthorizationException")
	s.refuse(aclCommand, "--add --allow-principal User:alice --operation All --topic "+t, "ClusterAuthorizationException")
	return s.err
}

// as has the script's tools log in as another user.
func (s *script) as(user string) {
	if s.err == nil {
		s.config, s.err = s.toolConfig(user)
	}
}

func usersTool(ctx context.Context, a *attempt) error {
	s, user := a.securedScript(ctx, adminUser), a.topic
	entity := " --entity-type users --entity-name " + user
	a.guard.setPassword(user, "secret")
	s.run(configCommand, "--alter"+entity+" --add-config SCRAM-SHA-256=[iterations=8192,password=secret],SCRAM-SHA-512=[password=secret]", "Completed updating")
	s.run(configCommand, "--describe"+entity, "SCRAM-SHA-256=iterations=8192", "SCRAM-SHA-512=iterations=4096")
	s.run(configCommand, "--describe --entity-type users", user)
	s.as(user)
	s.without(topicCommand, "--list", "interop")
	s.refuse(configCommand, "--alter"+entity+" --add-config SCRAM-SHA-512=[password=other]", "ClusterAuthorizationException")
	s.as(adminUser)
	s.refuse(configCommand, "--alter"+entity+" --add-config SCRAM-SHA-256=[iterations=100,password=secret]", "4096")
	s.run(configCommand, "--alter"+entity+" --delete-config SCRAM-SHA-512", "Completed updating")
	s.without(configCommand, "--describe"+entity, "SCRAM-SHA-512")
	s.as(user)
	s.refuse(topicCommand, "--list", "Authentication failed")
	s.as(adminUser)
	s.run(configCommand, "--alter"+entity+" --delete-config SCRAM-SHA-256", "Completed updating")
	s.without(configCommand, "--describe"+entity, "SCRAM")
	s.refuse(configCommand, "--alter"+entity+" --delete-config SCRAM-SHA-256", "ResourceNotFoundException")
	return s.err
}

func deniedConsoles(ctx context.Context, a *attempt) error {
	secret := "secret-" + a.topic
	for _, t := range []string{a.topic, secret} {
		if err := a.makeTopic(ctx, t, 1); err != nil {
			return err
		}
	}
	s := a.securedScript(ctx, rightUser)
	s.feed("one\ntwo\n", producerTool, "--topic "+a.topic)
	s.run(consumerTool, "--topic "+a.topic+" --group "+a.topic+" --from-beginning --max-messages 2", "one\ntwo\n")
	s.stdin = "one\n"
	s.refuse(producerTool, "--sync --topic "+secret, // else it only logs it
		"Not authorized to access topics: ["+secret+"]")
	s.stdin = ""
	s.refuse(consumerTool, "--topic "+secret+" --group "+a.topic+" --from-beginning --timeout-ms 20000", "Not authorized to access topics: ["+secret+"]")
	s.refuse(consumerTool, "--topic "+a.topic+" --group "+secret+" --from-beginning --timeout-ms 20000", "Not authorized to access group: "+secret)
	s.as(adminUser)
	if total := s.total(secret); s.err == nil && total != 0 {
		s.err = fmt.Errorf("the denied topic has %d records", total)
	}
	return s.err
}

func deniedTopics(ctx context.Context, a *attempt) error {
	s, secret := a.securedScript(ctx, adminUser), "secret-"+a.topic
	s.run(topicCommand, "--create --topic "+secret+" --partitions 1", "Created topic")
	s.as(rightUser)
	s.run(topicCommand, "--create --topic "+a.topic+" --partitions 3", "Created topic")
	s.refuse(topicCommand, "--create --topic other-"+a.topic, "not authorized to access the topic")
	s.until(topicCommand, "--list", a.topic+"\n")
	s.without(topicCommand, "--list", secret)
	s.without(topicCommand, "--describe", secret)
	s.run(topicCommand, "--describe --topic "+a.topic, "PartitionCount: 3")
	s.refuse(topicCommand, "--describe --topic "+secret, "does not exist")
	s.refuse(topicCommand, "--delete --topic "+secret, "does not exist")
	s.as(adminUser)
	s.run(topicCommand, "--list", secret)
	return s.err
}

// kadmSecurity changes users and ACLs with franz-go's admin client: what it says holds at once.
func kadmSecurity(ctx context.Context, a *attempt) error {
	ctx, cancel := context.WithTimeout(ctx, a.step)
	defer cancel()
	admin, err := a.kgoAs(adminUser)
	if err != nil {
		return err
	}
	defer admin.Close()
	adm, user := kadm.NewClient(admin), "user-"+a.topic
	if err := a.makeTopic(ctx, a.topic, 1); err != nil {
		return err
	}
	a.guard.setPassword(user, oddPassword)
	altered, err := adm.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: user, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: oddPassword}})
	if err := errors.Join(err, altered.Error()); err != nil {
		return fmt.Errorf("AlterUserSCRAMs: %w", err)
	}
	described, err := adm.DescribeUserSCRAMs(ctx, user)
	if err := is(errors.Join(err, described.Error()), len(described[user].CredInfos) == 1 && described[user].CredInfos[0].Iterations == 4096, described); err != nil {
		return fmt.Errorf("DescribeUserSCRAMs: %w", err)
	}
	theirs, err := a.kgoAs(user)
	if err != nil {
		return err
	}
	defer theirs.Close()
	write := func() error {
		return theirs.ProduceSync(ctx, &kgo.Record{Topic: a.topic, Value: []byte("x")}).FirstErr()
	}
	if err := write(); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fmt.Errorf("before there is an ACL: %w", err)
	}
	builder := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Topics(a.topic).ResourcePatternType(kadm.ACLPatternLiteral).Allow("User:" + user).AllowHosts("*").Operations(kadm.OpWrite)
	}
	created, err := adm.CreateACLs(ctx, builder())
	if err := is(err, len(created) == 1 && created[0].Err == nil, created); err != nil {
		return fmt.Errorf("CreateACLs: %w", err)
	}
	if err := harness.Eventually(a.step, func() bool { err = write(); return err == nil }); err != nil {
		return fmt.Errorf("with an ACL: %w", err)
	}
	acls, err := adm.DescribeACLs(ctx, builder())
	if err := is(err, len(acls) == 1 && len(acls[0].Described) == 1 && acls[0].Described[0].Principal == "User:"+user, acls); err != nil {
		return fmt.Errorf("DescribeACLs: %w", err)
	}
	deleted, err := adm.DeleteACLs(ctx, builder())
	if err := is(err, len(deleted) == 1 && len(deleted[0].Deleted) == 1, deleted); err != nil {
		return fmt.Errorf("DeleteACLs: %w", err)
	}
	if err := write(); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fmt.Errorf("after the ACL is gone: %w", err)
	}
	gone, err := adm.AlterUserSCRAMs(ctx, []kadm.DeleteSCRAM{{User: user, Mechanism: kadm.ScramSha512}}, nil)
	if err := errors.Join(err, gone.Error()); err != nil {
		return fmt.Errorf("AlterUserSCRAMs, to delete: %w", err)
	}
	late := time.Now().Add(5 * time.Second)
	for err = nil; !errors.Is(err, kerr.SaslAuthenticationFailed); {
		if time.Now().After(late) {
			return fmt.Errorf("a deleted user is in after 5 s: %v", err)
		}
		err = theirs.Ping(ctx)
	}
	return nil
}

// kgoAs is franz-go, logged in.
func (a *attempt) kgoAs(user string) (*kgo.Client, error) {
	l := line.Login{CA: filepath.Join(a.guard.dir, "ca.crt")}
	return kgo.NewClient(kgo.SeedBrokers(strings.Split(a.bootstrap(a.way, nil), ",")...), kgo.DialTLSConfig(l.TLS()), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.SASL(scram.Auth{User: user, Pass: a.guard.password(user)}.AsSha512Mechanism()))
}

import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What applications ask of Java's AdminClient, but for consumer groups. For 3.x and 4.x. */
public final class Admin {
    private static AdminClient admin;
    private static String topic;

    public static void main(String[] args) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        Login.secure(p);
        topic = args[1];
        admin = AdminClient.create(p);
        cluster();
        create();
        describe();
        configs();
        partitions();
        records(p);
        refusals();
        delete();
        admin.close();
        System.out.println("# done");
    }

    private static void cluster() throws Exception {
        DescribeClusterResult c = admin.describeCluster();
        check("one broker", get(c.nodes()).size() == 1);
        check("a controller", get(c.controller()) != null && get(c.controller()).id() == get(c.nodes()).iterator().next().id());
        check("a cluster id", get(c.clusterId()) != null && !get(c.clusterId()).isEmpty());
        get(admin.describeFeatures().featureMetadata());
        check("no reassignments", get(admin.listPartitionReassignments().reassignments()).isEmpty());
    }

    private static void create() throws Exception {
        get(admin.createTopics(Collections.singleton(new NewTopic(topic, 3, (short) 3)), new CreateTopicsOptions().validateOnly(true)).all());
        check("validateOnly creates nothing", !get(admin.listTopics().names()).contains(topic));
        NewTopic t = new NewTopic(topic, 3, (short) 3).configs(Collections.singletonMap("retention.ms", "1234567"));
        org.apache.kafka.clients.admin.CreateTopicsResult r = admin.createTopics(Collections.singleton(t));
        get(r.all());
        check("partitions in the answer", get(r.numPartitions(topic)) == 3);
        check("replication factor in the answer", get(r.replicationFactor(topic)) == 3);
        check("configuration in the answer", get(r.config(topic)).get("retention.ms").value().equals("1234567"));
        check("id in the answer", !get(r.topicId(topic)).equals(Uuid.ZERO_UUID));
        await("listed", () -> get(admin.listTopics().names()).contains(topic));
        // Broker's defaults.
        get(admin.createTopics(Collections.singleton(new NewTopic(topic + "-defaults", java.util.Optional.empty(), java.util.Optional.empty()))).all());
        fails(TopicExistsException.class, admin.createTopics(Collections.singleton(new NewTopic(topic, 3, (short) 3))).all());
    }

    private static void describe() throws Exception {
        await("described", () -> describeTopic().partitions().size() == 3);
        TopicDescription d = describeTopic();
        check("a leader each", d.partitions().stream().allMatch(i -> i.leader() != null));
        check("not internal", !d.isInternal());
        Map<Uuid, TopicDescription> byId = get(admin.describeTopics(TopicCollection.ofTopicIds(Collections.singleton(d.topicId()))).allTopicIds());
        check("described by id", byId.get(d.topicId()).name().equals(topic));
        fails(UnknownTopicOrPartitionException.class, admin.describeTopics(Collections.singleton(topic + "-none")).allTopicNames());
    }

    private static TopicDescription describeTopic() throws Exception {
        return get(admin.describeTopics(Collections.singleton(topic)).allTopicNames()).get(topic);
    }

    private static ConfigEntry config(String name) throws Exception {
        ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return get(admin.describeConfigs(Collections.singleton(r)).all()).get(r).get(name);
    }

    private static void incremental(String name, String value, AlterConfigOp.OpType op) throws Exception {
        ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Map<ConfigResource, Collection<AlterConfigOp>> m = new HashMap<>();
        m.put(r, Collections.singleton(new AlterConfigOp(new ConfigEntry(name, value), op)));
        get(admin.incrementalAlterConfigs(m).all());
    }

    private static void configs() throws Exception {
        check("set at creation", config("retention.ms").value().equals("1234567") && config("retention.ms").source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        incremental("retention.ms", "7654321", AlterConfigOp.OpType.SET);
        await("set", () -> config("retention.ms").value().equals("7654321"));
        incremental("cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
        await("appended", () -> config("cleanup.policy").value().equals("delete,compact"));
        incremental("cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT);
        await("subtracted", () -> config("cleanup.policy").value().equals("delete"));
        incremental("retention.ms", null, AlterConfigOp.OpType.DELETE);
        await("back to the default", () -> config("retention.ms").isDefault());
        try {
            // AlterConfigs, which went with 4.0.
            ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            Object result = AdminClient.class.getMethod("alterConfigs", Map.class)
                    .invoke(admin, Collections.singletonMap(r, new Config(Collections.singleton(new ConfigEntry("segment.ms", "3600000")))));
            get((KafkaFuture<?>) result.getClass().getMethod("all").invoke(result));
            await("altered", () -> config("segment.ms").value().equals("3600000"));
        } catch (NoSuchMethodException e) {
            // 4.x
        }
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, Integer.toString(get(admin.describeCluster().nodes()).iterator().next().id()));
        check("the broker's configuration", !get(admin.describeConfigs(Collections.singleton(broker)).all()).get(broker).entries().isEmpty());
    }

    private static void partitions() throws Exception {
        get(admin.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(5))).all());
        await("five partitions", () -> describeTopic().partitions().size() == 5);
        fails(InvalidPartitionsException.class, admin.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(2))).all());
    }

    private static ListOffsetsResultInfo offset(OffsetSpec spec) throws Exception {
        TopicPartition tp = new TopicPartition(topic, 0);
        return get(admin.listOffsets(Collections.singletonMap(tp, spec)).all()).get(tp);
    }

    private static void records(Properties p) throws Exception {
        TopicPartition tp = new TopicPartition(topic, 0);
        long producerId;
        long base = System.currentTimeMillis() - 10_000; // what is older than the topic's retention would go
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < 100; i++) {
                producer.send(new ProducerRecord<>(topic, 0, base + (i == 40 ? 5000 : i), null, new byte[100]));
            }
            producer.flush();
            List<ProducerState> states = get(admin.describeProducers(Collections.singleton(tp)).all()).get(tp).activeProducers();
            check("one producer", states.size() == 1 && states.get(0).lastSequence() == 99);
            producerId = states.get(0).producerId();
        }
        check("a producer id", producerId >= 0);
        check("latest", offset(OffsetSpec.latest()).offset() == 100);
        check("earliest", offset(OffsetSpec.earliest()).offset() == 0);
        check("largest timestamp", offset(OffsetSpec.maxTimestamp()).offset() == 40);
        check("by time", offset(OffsetSpec.forTimestamp(base + 10)).offset() == 10);
        check("after the end", offset(OffsetSpec.forTimestamp(base + 8000)).offset() == -1);
        int broker = get(admin.describeCluster().nodes()).iterator().next().id();
        Map<String, LogDirDescription> dirs = get(admin.describeLogDirs(Collections.singleton(broker)).allDescriptions()).get(broker);
        check("sizes", dirs.values().stream().anyMatch(d -> d.replicaInfos().containsKey(tp) && d.replicaInfos().get(tp).size() > 10_000));
        get(admin.deleteRecords(Collections.singletonMap(tp, RecordsToDelete.beforeOffset(30))).all());
        check("records deleted", offset(OffsetSpec.earliest()).offset() == 30);
    }

    private static void refusals() throws Exception {
        fails(InvalidReplicationFactorException.class, admin.createTopics(Collections.singleton(new NewTopic(topic + "-4", 1, (short) 4))).all());
        fails(InvalidPartitionsException.class, admin.createTopics(Collections.singleton(new NewTopic(topic + "-0", 0, (short) 1))).all());
        NewTopic t = new NewTopic(topic + "-c", 1, (short) 1).configs(Collections.singletonMap("no.such", "1"));
        fails(InvalidConfigurationException.class, admin.createTopics(Collections.singleton(t)).all());
        get(admin.listTransactions().all());
        // What is not served is said, not left hanging.
        check("nobody has credentials", admin.describeUserScramCredentials().all().get().isEmpty());
        check("no quotas", admin.describeClientQuotas(org.apache.kafka.common.quota.ClientQuotaFilter.all()).entities().get().isEmpty());
        fails(UnsupportedVersionException.class, admin.alterClientQuotas(java.util.List.of(new org.apache.kafka.common.quota.ClientQuotaAlteration(
            new org.apache.kafka.common.quota.ClientQuotaEntity(java.util.Map.of("user", "x")),
            java.util.List.of(new org.apache.kafka.common.quota.ClientQuotaAlteration.Op("producer_byte_rate", 1024.0))))).all());
        fails(org.apache.kafka.common.errors.SecurityDisabledException.class, admin.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values());
        fails(org.apache.kafka.common.errors.SecurityDisabledException.class, admin.deleteAcls(java.util.List.of(org.apache.kafka.common.acl.AclBindingFilter.ANY)).all());
        // The one broker that there is may be named, another one may not.
        get(reassign(1));
        fails(org.apache.kafka.common.errors.InvalidReplicaAssignmentException.class, reassign(2));
    }

    private static KafkaFuture<Void> reassign(int broker) {
        return admin.alterPartitionReassignments(Collections.singletonMap(new TopicPartition(topic, 0),
            java.util.Optional.of(new org.apache.kafka.clients.admin.NewPartitionReassignment(java.util.List.of(broker))))).all();
    }

    private static void delete() throws Exception {
        Uuid id = describeTopic().topicId();
        get(admin.deleteTopics(TopicCollection.ofTopicIds(Collections.singleton(id))).all());
        get(admin.deleteTopics(Arrays.asList(topic + "-defaults")).all());
        await("gone", () -> !get(admin.listTopics().names()).contains(topic));
        fails(UnknownTopicOrPartitionException.class, admin.deleteTopics(Arrays.asList(topic)).all());
    }

    private static <T> T get(KafkaFuture<T> f) throws Exception {
        return f.get(30, TimeUnit.SECONDS);
    }

    private static void check(String what, boolean holds) {
        if (!holds) {
            throw new AssertionError("not so: " + what);
        }
        System.out.println("# " + what);
    }

    /** Each request may reach another node, which follows in its own time. */
    private static void await(String what, Callable<Boolean> holds) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (true) {
            boolean so;
            try {
                so = holds.call();
            } catch (ExecutionException e) {
                if (!(e.getCause() instanceof UnknownTopicOrPartitionException)) {
                    throw e;
                }
                so = false;
            }
            if (so || System.nanoTime() > end) {
                check(what, so);
                return;
            }
            Thread.sleep(20);
        }
    }

    private static void fails(Class<? extends Exception> how, KafkaFuture<?> f) throws Exception {
        try {
            get(f);
        } catch (ExecutionException e) {
            if (how.isInstance(e.getCause())) {
                System.out.println("# " + how.getSimpleName() + ": " + e.getCause().getMessage());
                return;
            }
            throw e;
        }
        throw new AssertionError("not so: " + how.getSimpleName());
    }
}

import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.admin.UserScramCredentialsDescription;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.errors.ClusterAuthorizationException;
import org.apache.kafka.common.errors.InvalidRequestException;
import org.apache.kafka.common.errors.ResourceNotFoundException;
import org.apache.kafka.common.errors.SaslAuthenticationException;
import org.apache.kafka.common.errors.TopicAuthorizationException;
import org.apache.kafka.common.errors.UnacceptableCredentialException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;

/** ACLs and users by Java's AdminClient, as a super user. For 3.x and 4.x. */
public final class Security {
    private static AdminClient admin;
    private static String name;

    public static void main(String[] args) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        Login.secure(p);
        name = args[1];
        admin = AdminClient.create(p);
        users(p);
        acls(p);
        admin.close();
        System.out.println("# done");
    }

    /** The client's configuration as that user. */
    private static Properties as(Properties p, String user, String password) {
        Properties other = new Properties();
        other.putAll(p);
        other.put("sasl.mechanism", "SCRAM-SHA-256");
        other.put("sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"" + user
            + "\" password=\"" + password + "\";");
        return other;
    }

    private static void users(Properties p) throws Exception {
        String user = name + "-user";
        ScramCredentialInfo info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 8192);
        get(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, info, "first"))).all());
        UserScramCredentialsDescription d = get(admin.describeUserScramCredentials(List.of(user)).description(user));
        check("described", d.credentialInfos().size() == 1 && d.credentialInfos().get(0).equals(info));
        check("listed", get(admin.describeUserScramCredentials().users()).contains(user));
        try (AdminClient theirs = AdminClient.create(as(p, user, "first"))) {
            get(theirs.describeCluster().clusterId());
            fails(ClusterAuthorizationException.class, theirs.describeUserScramCredentials().users());
            fails(ClusterAuthorizationException.class,
                theirs.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, info, "mine"))).all());
        }
        get(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, info, "second"))).all());
        try (AdminClient theirs = AdminClient.create(as(p, user, "first"))) {
            fails(SaslAuthenticationException.class, theirs.describeCluster().clusterId());
        }
        try (AdminClient theirs = AdminClient.create(as(p, user, "second"))) {
            get(theirs.describeCluster().clusterId());
        }
        ScramCredentialInfo few = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 100);
        fails(UnacceptableCredentialException.class,
            admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, few, "third"))).all());
        get(admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256))).all());
        fails(ResourceNotFoundException.class,
            admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256))).all());
        fails(ResourceNotFoundException.class, admin.describeUserScramCredentials(List.of(user)).description(user));
    }

    private static AclBinding binding(PatternType pattern, String topic, String user, AclOperation op, AclPermissionType permission, String host) {
        return new AclBinding(new ResourcePattern(ResourceType.TOPIC, topic, pattern), new AccessControlEntry("User:" + user, host, op, permission));
    }

    private static Collection<AclBinding> find(PatternType pattern, String topic) throws Exception {
        return get(admin.describeAcls(new AclBindingFilter(new ResourcePatternFilter(ResourceType.TOPIC, topic, pattern), AccessControlEntryFilter.ANY)).values());
    }

    private static void acls(Properties p) throws Exception {
        String user = name + "-reader";
        ScramCredentialInfo info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096);
        get(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, info, "secret"))).all());
        get(admin.createTopics(List.of(new NewTopic(name, 1, (short) 1), new NewTopic(name + "-hidden", 1, (short) 1))).all());
        AclBinding allow = binding(PatternType.PREFIXED, name, user, AclOperation.READ, AclPermissionType.ALLOW, "*");
        AclBinding deny = binding(PatternType.LITERAL, name + "-hidden", user, AclOperation.ALL, AclPermissionType.DENY, "*");
        get(admin.createAcls(List.of(allow, deny)).all());
        check("by its name", find(PatternType.PREFIXED, name).contains(allow));
        check("what matches a name", find(PatternType.MATCH, name + "-hidden").containsAll(List.of(allow, deny)));
        check("literal only", !find(PatternType.LITERAL, name + "-hidden").contains(allow));
        fails(InvalidRequestException.class, admin.createAcls(List.of(binding(PatternType.LITERAL, name, user, AclOperation.READ, AclPermissionType.ALLOW, "kafka.example"))).all());
        try (AdminClient theirs = AdminClient.create(as(p, user, "secret"))) {
            check("listed what may be described", get(theirs.listTopics().names()).equals(Collections.singleton(name)));
            check("operations", get(theirs.describeTopics(List.of(name), new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames())
                .get(name).authorizedOperations().equals(java.util.Set.of(AclOperation.READ, AclOperation.DESCRIBE)));
            check("no operations of the cluster", get(theirs.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations()).isEmpty());
            fails(ClusterAuthorizationException.class, theirs.describeAcls(AclBindingFilter.ANY).values());
            fails(ClusterAuthorizationException.class, theirs.createAcls(List.of(allow)).all());
            fails(ClusterAuthorizationException.class, theirs.deleteAcls(List.of(AclBindingFilter.ANY)).all());
            fails(TopicAuthorizationException.class, theirs.createTopics(List.of(new NewTopic(name + "-new", 1, (short) 1))).all());
            fails(TopicAuthorizationException.class, theirs.deleteTopics(List.of(name)).all());
            fails(TopicAuthorizationException.class, theirs.describeTopics(List.of(name + "-hidden")).allTopicNames());
        }
        check("deleted", get(admin.deleteAcls(List.of(allow.toFilter(), deny.toFilter())).all()).size() == 2);
        check("gone", Collections.disjoint(find(PatternType.MATCH, name + "-hidden"), List.of(allow, deny)));
        get(admin.deleteTopics(List.of(name, name + "-hidden")).all());
        fails(UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(name)).all());
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

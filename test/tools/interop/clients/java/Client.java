import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's Java client in the interop test, for every version from 0.11 on. */
public final class Client {
    private static final OutputStream out = new BufferedOutputStream(System.out, 1 << 16);

    public static void main(String[] args) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        if (args.length != 5) {
            throw new IllegalArgumentException("usage: Client BOOTSTRAP MODE STEP TOPIC ARGUMENT");
        }
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        Login.secure(p);
        String topic = args[3];
        String argument = args[4];
        switch (args[2]) {
            case "login":
                Login.step(p);
                break;
            case "create":
                try (AdminClient admin = AdminClient.create(p)) {
                    admin.createTopics(Collections.singleton(new NewTopic(topic, Integer.parseInt(argument), (short) 3))).all().get();
                }
                break;
            case "produce":
                produce(p, topic, argument);
                break;
            case "read":
                read(p, topic, Integer.parseInt(argument));
                break;
            case "transact":
                transact(p, topic, argument);
                break;
            case "committed":
                p.put("isolation.level", "read_committed");
                read(p, topic, Integer.parseInt(argument));
                break;
            case "group":
                group(p, topic, argument);
                break;
            default:
                throw new IllegalArgumentException("no step " + args[2]);
        }
        out.flush();
    }

    private static void produce(Properties p, String topic, String codec) throws Exception {
        p.put("compression.type", codec);
        if (!modern()) {
            // The default of its time is to give up at the first error.
            p.put("retries", Integer.MAX_VALUE);
        }
        AtomicInteger done = new AtomicInteger();
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            // Bytes as they are: one character each.
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.ISO_8859_1), 1 << 16);
            for (String l = in.readLine(); l != null; l = in.readLine()) {
                int tab = l.indexOf('\t');
                ProducerRecord<byte[], byte[]> r = new ProducerRecord<>(topic, bytes(l.substring(0, tab)), bytes(l.substring(tab + 1)));
                r.headers().add("h", bytes("interop"));
                producer.send(r, (m, e) -> {
                    if (e != null) {
                        failure.compareAndSet(null, e);
                    } else {
                        done.incrementAndGet();
                    }
                });
                if (failure.get() != null) {
                    throw failure.get();
                }
            }
        }
        if (failure.get() != null) {
            throw failure.get();
        }
        say("produced " + done.get());
    }

    private static void transact(Properties p, String topic, String id) throws Exception {
        p.put("transactional.id", id);
        p.put("transaction.timeout.ms", "30000");
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.ISO_8859_1), 1 << 16);
            boolean open = false;
            for (String l = in.readLine(); l != null; l = in.readLine()) {
                int tab = l.indexOf('\t');
                if (tab >= 0) {
                    if (!open) {
                        producer.beginTransaction();
                        open = true;
                    }
                    producer.send(new ProducerRecord<>(topic, bytes(l.substring(0, tab)), bytes(l.substring(tab + 1))));
                    continue;
                }
                if (l.equals("commit")) {
                    producer.commitTransaction();
                    say("committed");
                } else {
                    producer.flush();
                    producer.abortTransaction();
                    say("aborted");
                }
                open = false;
            }
        }
    }

    private static void read(Properties p, String topic, int n) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> all = new ArrayList<>();
            for (PartitionInfo i : consumer.partitionsFor(topic)) {
                all.add(new TopicPartition(topic, i.partition()));
            }
            consumer.assign(all);
            consumer.seekToBeginning(all);
            for (int got = 0; got < n; ) {
                ConsumerRecords<byte[], byte[]> records = poll(consumer);
                got += records.count();
                print(records);
            }
        }
    }

    private static void group(Properties p, String topic, String group) throws Exception {
        p.put("group.id", group);
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", "false");
        AtomicReference<Boolean> ended = new AtomicReference<>(false);
        Thread t = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                }
            } catch (IOException e) {
                System.err.println(e);
            }
            ended.set(true);
        });
        t.setDaemon(true);
        t.start();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(Collections.singleton(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    try {
                        say("assigned " + partitions);
                    } catch (IOException e) {
                        throw new RuntimeException(e);
                    }
                }
            });
            while (!ended.get()) {
                ConsumerRecords<byte[], byte[]> records = poll(consumer);
                print(records);
                if (records.count() > 0) {
                    commit(consumer);
                }
            }
        }
        say("closed");
    }

    /** A rebalance may come between poll and commit; the records are read again then. */
    private static void commit(KafkaConsumer<byte[], byte[]> consumer) {
        try {
            consumer.commitSync();
        } catch (org.apache.kafka.clients.consumer.CommitFailedException e) {
            System.err.println("commit: " + e.getMessage());
        } catch (org.apache.kafka.common.errors.RetriableException e) {
            System.err.println("commit: " + e);
        } catch (org.apache.kafka.common.KafkaException e) {
            if (!e.getClass().getSimpleName().equals("RebalanceInProgressException")) {
                throw e;
            }
        }
    }

    /** Whether the client is of 2.0 or newer. */
    private static boolean modern() {
        try {
            KafkaConsumer.class.getMethod("poll", Duration.class);
            return true;
        } catch (NoSuchMethodException e) {
            return false;
        }
    }

    /** poll(long) was replaced by poll(Duration) in 2.0 and removed in 4.0. */
    @SuppressWarnings("unchecked")
    private static ConsumerRecords<byte[], byte[]> poll(KafkaConsumer<byte[], byte[]> consumer) throws Exception {
        boolean modern = modern();
        Method poll = KafkaConsumer.class.getMethod("poll", modern ? Duration.class : long.class);
        return (ConsumerRecords<byte[], byte[]>) poll.invoke(consumer, modern ? (Object) Duration.ofMillis(300) : (Object) 300L);
    }

    private static synchronized void print(ConsumerRecords<byte[], byte[]> records) throws IOException {
        for (ConsumerRecord<byte[], byte[]> r : records) {
            out.write(bytes(r.partition() + "\t" + r.offset() + "\t"));
            out.write(r.key());
            out.write('\t');
            out.write(r.value());
            for (Header h : r.headers()) {
                out.write(bytes("\t" + h.key() + "="));
                out.write(h.value());
            }
            out.write('\n');
        }
        out.flush();
    }

    private static synchronized void say(String what) throws IOException {
        out.write(bytes("# " + what + "\n"));
        out.flush();
    }

    private static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.ISO_8859_1);
    }
}

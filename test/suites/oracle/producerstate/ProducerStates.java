// In Kafka's own package, since what tells a duplicate is not public.
package org.apache.kafka.storage.internals.log;

import java.io.File;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.stream.Collectors;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.utils.Time;

/**
 * Does to a ProducerStateManager what Kafka's log does as leader (UnifiedLog.append), with batches and
 * markers by chance, and writes down each with what became of it. Arguments: the
 * first seed, how many, steps of each.
 */
public class ProducerStates {
    static final int EXPIRATION = 86400000;

    final Random random;
    final ProducerStateManager manager;
    long next = 0, now = 1000;
    final int[] numbers = new int[8]; // of the markers, by producer

    ProducerStates(long seed) throws Exception {
        random = new Random(seed);
        File dir = Files.createTempDirectory("producerstates").toFile();
        dir.deleteOnExit();
        manager = new ProducerStateManager(new TopicPartition("t", 0), dir, 900000,
            new ProducerStateManagerConfig(EXPIRATION, false), Time.SYSTEM);
    }

    public static void main(String[] args) throws Exception {
        long first = Long.parseLong(args[0]);
        for (long seed = first; seed < first + Integer.parseInt(args[1]); seed++) {
            ProducerStates states = new ProducerStates(seed);
            System.out.println("seed " + seed);
            for (int i = 0; i < Integer.parseInt(args[2]); i++) {
                states.step();
            }
        }
    }

    void step() {
        long id = 1 + random.nextInt(4);
        Optional<ProducerStateEntry> entry = manager.lastEntry(id);
        now += random.nextInt(40) == 0 ? EXPIRATION - random.nextInt(3) : random.nextInt(1000);
        if (random.nextInt(4) == 0 && entry.isPresent()) {
            marker(id, entry.get());
        } else {
            batch(id, entry);
        }
    }

    void batch(long id, Optional<ProducerStateEntry> entry) {
        int epoch = entry.map(e -> (int) e.producerEpoch()).orElse(random.nextInt(3));
        boolean open = entry.isPresent() && entry.get().currentTxnFirstOffset().isPresent();
        int sequence = entry.map(e -> e.lastSeq() + 1).orElse(random.nextInt(2) * random.nextInt(100));
        int count = 1 + random.nextInt(3);
        boolean transactional = open ? random.nextInt(10) != 0 : random.nextInt(2) == 0;
        switch (random.nextInt(12)) {
            case 0: sequence = Math.max(sequence + random.nextInt(7) - 3, 0); break;
            case 1: epoch = Math.max(epoch - 1, 0); break;
            case 2: // the next epoch; Kafka's coordinator gives none while a transaction is open
                if (!open) {
                    epoch++;
                    sequence = random.nextInt(3) == 0 ? 1 : 0;
                }
                break;
            case 3: case 4: // sent again
                if (entry.isPresent() && !entry.get().isEmpty()) {
                    List<BatchMetadata> had = new ArrayList<>(entry.get().batchMetadata());
                    BatchMetadata again = had.get(random.nextInt(had.size()));
                    sequence = again.firstSeq();
                    count = again.offsetDelta() + 1;
                }
                break;
            default:
        }
        SimpleRecord[] records = new SimpleRecord[count];
        for (int i = 0; i < count; i++) {
            records[i] = new SimpleRecord(now, "v".getBytes());
        }
        MemoryRecords memory = transactional
            ? MemoryRecords.withTransactionalRecords(next, Compression.NONE, id, (short) epoch, sequence, 1, records)
            : MemoryRecords.withIdempotentRecords(next, Compression.NONE, id, (short) epoch, sequence, 1, records);
        String what = "batch " + id + " " + epoch + " " + sequence + " " + count + " " + transactional + " " + now;
        manager.removeExpiredProducers(now);
        append(what, id, memory.batches().iterator().next(), AppendOrigin.CLIENT, (short) 0);
    }

    void marker(long id, ProducerStateEntry entry) {
        boolean commit = random.nextBoolean();
        int epoch = entry.producerEpoch() + random.nextInt(2); // of version 1 and 2
        if (random.nextInt(10) == 0 && entry.currentTxnFirstOffset().isPresent() && epoch > 0) {
            epoch = entry.producerEpoch() - 1; // of a transaction before; it is refused
            if (epoch < 0) {
                epoch = 0;
            }
        }
        int number = numbers[(int) id] + 1;
        MemoryRecords memory = MemoryRecords.withEndTransactionMarker(next, now, 1, id, (short) epoch,
            new EndTransactionMarker(commit ? ControlRecordType.COMMIT : ControlRecordType.ABORT, number));
        String what = "marker " + id + " " + epoch + " " + number + " " + commit + " " + now;
        manager.removeExpiredProducers(now);
        short version = (short) (epoch > entry.producerEpoch() ? 2 : 0); // as the transaction's client speaks
        if (append(what, id, memory.batches().iterator().next(), AppendOrigin.COORDINATOR, version)) {
            numbers[(int) id] = number;
        }
    }

    boolean append(String what, long id, RecordBatch batch, AppendOrigin origin, short version) {
        String became;
        boolean ok = false;
        Optional<BatchMetadata> duplicate = origin == AppendOrigin.CLIENT
            ? manager.lastEntry(id).flatMap(e -> e.findDuplicateBatch(batch)) : Optional.empty();
        if (duplicate.isPresent()) {
            became = "duplicate " + duplicate.get().firstOffset();
        } else {
            try {
                ProducerAppendInfo info = manager.prepareUpdate(id, origin);
                Optional<CompletedTxn> completed = info.append(batch, Optional.of(new LogOffsetMetadata(next)), version);
                manager.update(info);
                became = "at " + next;
                if (completed.isPresent()) {
                    CompletedTxn c = completed.get();
                    if (c.isAborted()) {
                        became += " aborted " + c.firstOffset() + " " + c.lastOffset() + " " + manager.lastStableOffset(c);
                    }
                    manager.completeTxn(c);
                }
                next = batch.lastOffset() + 1;
                manager.updateMapEndOffset(next);
                manager.onHighWatermarkUpdated(next);
                ok = true;
            } catch (Exception e) {
                became = e.getClass().getSimpleName();
            }
        }
        String state = manager.lastEntry(id).map(e -> e.producerEpoch() + " " + e.lastSeq() + " "
            + e.currentTxnFirstOffset().orElse(-1) + " "
            + e.batchMetadata().stream().map(b -> b.firstSeq() + "-" + b.lastSeq() + "@" + b.firstOffset()).collect(Collectors.joining(",", "[", "]")))
            .orElse("unknown");
        System.out.println(what + " -> " + became + " | " + manager.firstUndecidedOffset().orElse(next) + " " + manager.producerIdCount() + " | " + state);
        return ok;
    }
}

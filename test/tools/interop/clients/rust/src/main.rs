//! rdkafka, librdkafka for Rust, in the interop test.

use std::io::{BufRead, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::OAuthToken;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, _mode, step, topic, argument] = args.as_slice() else {
        return Err("usage: client BOOTSTRAP MODE STEP TOPIC ARGUMENT".into());
    };
    let mut conf = ClientConfig::new();
    conf.set("bootstrap.servers", bootstrap);
    let mut how = Session::default();
    if let Ok(file) = std::env::var("INTEROP_LOGIN") {
        how = secure(&mut conf, &file)?;
    }
    match step.as_str() {
        "login" => login(conf, how, topic),
        "create" => create(conf, how, topic, argument.parse()?),
        "produce" => produce(conf, how, topic, argument),
        "read" => read(conf, how, topic, argument.parse()?),
        "transact" => transact(conf, how, topic, argument),
        "committed" => {
            conf.set("isolation.level", "read_committed");
            read(conf, how, topic, argument.parse()?)
        }
        "group" => group(conf, how, topic, argument),
        other => Err(format!("no step {other}").into()),
    }
}

/// What a session needs beside its configuration: the token, and whether a login was refused.
#[derive(Clone, Default)]
struct Session {
    token: String,
    refused: Arc<Mutex<Option<String>>>,
}

impl ClientContext for Session {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let lifetime = SystemTime::now() + Duration::from_secs(3600);
        Ok(OAuthToken {
            token: self.token.clone(),
            principal_name: String::new(),
            lifetime_ms: lifetime.duration_since(UNIX_EPOCH)?.as_millis() as i64,
        })
    }

    fn error(&self, error: KafkaError, reason: &str) {
        eprintln!("{error}: {reason}");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            self.refused.lock().unwrap().get_or_insert(format!("{error}: {reason}").replace('\n', " "));
        }
    }
}

impl ConsumerContext for Session {}

/// The file has lines name=value: mechanism, user, password, token, ca.
fn secure(conf: &mut ClientConfig, file: &str) -> Fallible<Session> {
    let mut how = Session::default();
    conf.set("security.protocol", "SASL_SSL");
    for line in std::fs::read_to_string(file)?.lines() {
        let (name, value) = line.split_once('=').ok_or("a line without =")?;
        match name {
            "mechanism" => conf.set("sasl.mechanisms", value),
            "user" => conf.set("sasl.username", value),
            "password" => conf.set("sasl.password", value),
            "ca" => conf.set("ssl.ca.location", value),
            _ => {
                if name == "token" {
                    how.token = value.to_string();
                }
                continue;
            }
        };
    }
    Ok(how)
}

/// librdkafka goes on trying with what is wrong, and tells each time.
fn login(mut conf: ClientConfig, how: Session, topic: &str) -> Fallible<()> {
    conf.set("group.id", "unused");
    println!("# asking");
    let consumer: BaseConsumer<Session> = conf.create_with_context(how.clone())?;
    for _ in 0..20 {
        consumer.poll(Duration::from_millis(100));
        if let Some(why) = how.refused.lock().unwrap().as_ref() {
            println!("# refused {why}");
            return Ok(());
        }
        if consumer.fetch_metadata(Some(topic), Duration::from_millis(500)).is_ok() {
            println!("# in");
            return Ok(());
        }
    }
    Err("neither in nor refused".into())
}

fn create(conf: ClientConfig, how: Session, topic: &str, partitions: i32) -> Fallible<()> {
    let admin: AdminClient<Session> = conf.create_with_context(how)?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(3));
    let answer = futures_executor::block_on(admin.create_topics(&[new], &AdminOptions::new()))?;
    for result in answer {
        result.map_err(|(name, code)| format!("create {name}: {code}"))?;
    }
    Ok(())
}

/// Counts what is acknowledged and ends the program when something is not.
struct Count(Arc<AtomicUsize>, Session);

impl ClientContext for Count {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.1.generate_oauth_token(config)
    }
}

impl ProducerContext for Count {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult, _: ()) {
        if let Err((e, _)) = result {
            eprintln!("produce: {e}");
            std::process::exit(1);
        }
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn produce(mut conf: ClientConfig, how: Session, topic: &str, codec: &str) -> Fallible<()> {
    let done = Arc::new(AtomicUsize::new(0));
    conf.set("compression.type", codec);
    let producer: ThreadedProducer<Count> = conf.create_with_context(Count(done.clone(), how))?;
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line?;
        let tab = line.iter().position(|c| *c == b'\t').ok_or("a line without a tab")?;
        let mut record = BaseRecord::to(topic)
            .key(&line[..tab])
            .payload(&line[tab + 1..])
            .headers(OwnedHeaders::new().insert(Header { key: "h", value: Some("interop") }));
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((e, _)) => return Err(e.into()),
            }
        }
    }
    producer.flush(PATIENCE)?;
    println!("# produced {}", done.load(Ordering::SeqCst));
    Ok(())
}

/// Tries again what librdkafka says can be.
fn patiently<T>(mut what: impl FnMut() -> Result<T, KafkaError>) -> Fallible<T> {
    loop {
        match what() {
            Err(KafkaError::Transaction(e)) if e.is_retriable() => eprintln!("again: {e}"),
            other => return Ok(other?),
        }
    }
}

fn transact(mut conf: ClientConfig, how: Session, topic: &str, id: &str) -> Fallible<()> {
    conf.set("transactional.id", id).set("transaction.timeout.ms", "30000");
    let producer: ThreadedProducer<Count> = conf.create_with_context(Count(Arc::default(), how))?;
    patiently(|| producer.init_transactions(PATIENCE))?;
    let mut open = false;
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line?;
        if let Some(tab) = line.iter().position(|c| *c == b'\t') {
            if !open {
                producer.begin_transaction()?;
                open = true;
            }
            producer.send(BaseRecord::to(topic).key(&line[..tab]).payload(&line[tab + 1..])).map_err(|(e, _)| e)?;
            continue;
        }
        producer.flush(PATIENCE)?;
        if line == b"commit" {
            patiently(|| producer.commit_transaction(PATIENCE))?;
            println!("# committed");
        } else {
            patiently(|| producer.abort_transaction(PATIENCE))?;
            println!("# aborted");
        }
        open = false;
    }
    Ok(())
}

fn show(m: &BorrowedMessage) -> Fallible<()> {
    let mut line = format!("{}\t{}\t", m.partition(), m.offset()).into_bytes();
    line.extend_from_slice(m.key().unwrap_or_default());
    line.push(b'\t');
    line.extend_from_slice(m.payload().unwrap_or_default());
    if let Some(headers) = m.headers() {
        for h in headers.iter() {
            line.extend_from_slice(format!("\t{}=", h.key).as_bytes());
            line.extend_from_slice(h.value.unwrap_or_default());
        }
    }
    line.push(b'\n');
    std::io::stdout().write_all(&line)?;
    Ok(())
}

fn read(mut conf: ClientConfig, how: Session, topic: &str, n: usize) -> Fallible<()> {
    conf.set("group.id", "unused").set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Session> = conf.create_with_context(how)?;
    // A token is asked for when the consumer is polled.
    consumer.poll(Duration::from_millis(100));
    // All topics: a request of another form than the one for some.
    let metadata = consumer.fetch_metadata(None, PATIENCE)?;
    let ours = metadata.topics().iter().find(|t| t.name() == topic).ok_or("the topic is not listed")?;
    let mut from = TopicPartitionList::new();
    for p in ours.partitions() {
        from.add_partition_offset(topic, p.id(), Offset::Beginning)?;
    }
    consumer.assign(&from)?;
    let mut got = 0;
    while got < n {
        match consumer.poll(Duration::from_millis(300)) {
            Some(Ok(m)) => {
                show(&m)?;
                got += 1;
            }
            // librdkafka tries again by itself.
            Some(Err(e)) => eprintln!("{e}"),
            None => {}
        }
    }
    Ok(())
}

fn group(mut conf: ClientConfig, how: Session, topic: &str, group: &str) -> Fallible<()> {
    conf.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Session> = conf.create_with_context(how)?;
    consumer.subscribe(&[topic])?;
    let ended = Arc::new(AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::SeqCst);
    });
    while !ended.load(Ordering::SeqCst) {
        let mut got = 0;
        let mut wait = Duration::from_millis(300);
        while got < 1000 {
            match consumer.poll(wait) {
                Some(Ok(m)) => {
                    show(&m)?;
                    got += 1;
                }
                // librdkafka tries again by itself.
                Some(Err(e)) => eprintln!("{e}"),
                None => break,
            }
            wait = Duration::ZERO;
        }
        std::io::stdout().flush()?;
        // A rebalance may come between reading and committing.
        if got > 0 {
            if let Err(e) = consumer.commit_consumer_state(CommitMode::Sync) {
                eprintln!("commit: {e}");
            }
        }
    }
    drop(consumer);
    println!("# closed");
    Ok(())
}

package oracle

const (
	minute = 60_000 // ms
	hour   = 60 * minute
	day    = 24 * hour
)

// timed sends records this far from now, in ms.
func (t *T) timed(version int16, topic string, from ...int64) {
	var records []byte
	for i, ms := range from {
		records = append(records, recAt(ms, int64(i), field("k"), field("v"))...)
	}
	t.Produce(version, topic, t.batch(records, len(from)))
}

var timeCases = []Case{
	{"the default bounds", func(t *T) {
		topic := t.Topic("retention.ms=-1")
		for _, ms := range []int64{0, 59 * minute, 61 * minute, day, 36500 * day, -365 * day, -t.Now + 1} {
			t.Say("%s:", t.time(t.Now+ms))
			t.timed(9, topic, ms)
		}
		t.Say("in microseconds:")
		t.timed(9, topic, t.Now*1000)
	}},
	{"versions and which records", func(t *T) {
		topic := t.Topic()
		for _, v := range []int16{3, 7, 8, 9, 12} {
			t.timed(v, topic, 0, 2*hour, 0, 3*hour)
		}
	}},
	{"message.timestamp.after.max.ms", func(t *T) {
		topic := t.Topic("message.timestamp.after.max.ms=600000")
		t.timed(9, topic, 9*minute)
		t.timed(9, topic, 11*minute)
		t.timed(9, topic, -day)
		zero := t.Topic("message.timestamp.after.max.ms=0")
		t.timed(9, zero, -1000)
		t.timed(9, zero, minute)
		all := t.Topic("message.timestamp.after.max.ms=9223372036854775807")
		t.timed(9, all, 36500*day)
	}},
	{"message.timestamp.before.max.ms", func(t *T) {
		topic := t.Topic("message.timestamp.before.max.ms=600000")
		t.timed(9, topic, -9*minute)
		t.timed(9, topic, -11*minute)
		t.timed(9, topic, minute)
		t.timed(9, topic, 2*hour)
	}},
	{"no timestamp is within all bounds", func(t *T) {
		topic := t.Topic("message.timestamp.before.max.ms=0", "message.timestamp.after.max.ms=0")
		t.Produce(9, topic, one(set64(atBaseTimestamp, -1), set64(atMaxTimestamp, -1))(t))
	}},
	{"LogAppendTime has no bounds", func(t *T) {
		topic := t.Topic("message.timestamp.type=LogAppendTime", "message.timestamp.before.max.ms=0")
		t.timed(9, topic, 2*day)
		t.timed(9, topic, -2*day)
		t.Records(topic)
	}},
	{"a max timestamp that is not that of the records", func(t *T) {
		topic := t.Topic()
		t.Produce(9, topic, t.batch(rec(0, "k", "v"), 1, t.times(0, 5*day)))
		t.Produce(9, topic, t.batch(recAt(5*day, 0, field("k"), field("v")), 1, t.times(0, 0)))
		t.Records(topic)
	}},
	{"a record without key that is too late", func(t *T) {
		topic := t.Topic("cleanup.policy=compact")
		t.Produce(9, topic, holding(1, recAt(2*hour, 0, nothing, field("v")))(t))
		t.Produce(9, topic, holding(2, recAt(0, 0, nothing, field("v")), recAt(2*hour, 1, field("k"), field("v")))(t))
	}},
	{"a batch compressed", func(t *T) {
		topic := t.Topic()
		t.Produce(9, topic, t.batch(gz(join(rec(0, "k", "v"), recAt(2*hour, 1, field("k"), field("v")))), 2, set16(atAttributes, codecGzip)))
	}},
}

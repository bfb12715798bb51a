package oracle

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// handshake writes down what SaslHandshake answers.
func (t *T) handshake(version int16, mechanism string) {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = version, mechanism
	t.Do(req, "SupportedMechanisms")
}

// authenticate writes down what SaslAuthenticate answers, without what it says of SCRAM.
func (t *T) authenticate(said string) {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.Version, req.SASLAuthBytes = 2, []byte(said)
	t.Do(req, "SASLAuthBytes")
}

// after writes down whether the connection is still there.
func (t *T) after() {
	if t.wire == nil {
		t.Say("closed already")
		return
	}
	t.patience = 2 * time.Second
	req := kmsg.NewPtrApiVersionsRequest()
	_, err := t.send(req)
	if err == nil {
		t.Say("the connection goes on")
	} else {
		t.Say("then %v", err)
	}
	t.patience = 0
}

var loginCases = []Case{
	{"before a login", func(t *T) {
		for _, req := range []kmsg.Request{kmsg.NewPtrMetadataRequest(), kmsg.NewPtrFindCoordinatorRequest(), kmsg.NewPtrSASLAuthenticateRequest()} {
			t.Guest()
			t.Do(req)
			t.after()
		}
		t.Guest()
		t.ask(kmsg.NewPtrApiVersionsRequest())
	}},
	{"mechanisms that are not there", func(t *T) {
		for _, m := range []string{"", "PLAIN", "OAUTHBEARER", "GSSAPI", "SCRAM-SHA-1", "scram-sha-256"} {
			t.Guest()
			t.handshake(1, m)
			t.after()
		}
	}},
	{"handshakes", func(t *T) {
		t.Guest()
		t.handshake(1, "SCRAM-SHA-256")
		t.handshake(1, "SCRAM-SHA-512")
		t.after()
		t.Guest()
		t.handshake(0, "SCRAM-SHA-256")
	}},
	{"what is said wrong", func(t *T) {
		for _, said := range []string{"", "x", "n,,n=nobody,r=abc", "n,,n=a=b,r=abc", "p=tls-unique,,n=a,r=abc", "n,a=other,n=nobody,r=abc", "n,,n=nobody,r="} {
			t.Guest()
			t.handshake(1, "SCRAM-SHA-256")
			t.Say("%q", said)
			t.authenticate(said)
			t.after()
		}
	}},
	{"a message that comes too late", func(t *T) {
		user := t.User()
		t.As(user)
		t.ask(kmsg.NewPtrApiVersionsRequest())
		t.authenticate("n,,n=a,r=abc")
		t.after()
	}},
	{"a login again", func(t *T) {
		user := t.User()
		t.As(user)
		t.ask(kmsg.NewPtrApiVersionsRequest())
		t.handshake(1, "SCRAM-SHA-256")
		t.after()
	}},
}

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// output collects what a program says and lets a test wait for it.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

// find waits for a line and gives its first group.
func (o *output) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(30 * time.Second)
	for {
		o.mu.Lock()
		text := o.text.String()
		o.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m[len(m)-1]
		}
		select {
		case <-o.more:
		case <-late:
			t.Fatalf("%s is not said:\n%s", pattern, text)
		}
	}
}

// start runs the program until the test ends.
func start(t *testing.T, args ...string) *output {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := newOutput()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, args, noEnv, io.Discard, log) }()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != 0 {
			t.Errorf("the program ends with %d", code)
		}
	})
	return log
}

// certificate makes an authority, as a PEM file, and a certificate for name.
func certificate(t *testing.T, name string) (caFile string, config *tls.Config) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(err)
	caFile = writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return caFile, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestTheProgramOverTLS(t *testing.T) {
	ca, config := certificate(t, "kafka.internal")
	g := newFakeGatewayTLS(t, config)
	gatewayAddr := g.Listener.Addr().String()
	log := start(t, "-listen=127.0.0.1:0", "-metrics-listen=127.0.0.1:0", "-gateways", gatewayAddr,
		"-tls", "-tls-ca", ca, "-tls-server-name", "kafka.internal", "-advertise", "shim.example.org:9092")
	addr := log.find(t, `msg="shim started".* listen=(\S+)`)
	if names := log.find(t, `metadata_names=(\S+)`); names != "shim.example.org:9092" {
		t.Errorf("Metadata names %s", names)
	}
	web := strings.TrimSuffix(log.find(t, `msg=metrics url=(\S+)`), "/metrics")
	client := connect(t, addr)
	write(t, client, asked(apiMetadata, 1))
	gw := g.accept(t)
	if got := gw.header.Get(shim.AdvertiseHeader); got != "shim.example.org:9092" {
		t.Errorf("%s: %s", shim.AdvertiseHeader, got)
	}
	gw.want(asked(apiMetadata, 1))
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if code, body := get(t, web+path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	_, metrics := get(t, web+"/metrics")
	for _, line := range []string{
		"trimaran_shim_clients 1", "trimaran_shim_clients_total 1", "trimaran_shim_requests_total 1", "trimaran_shim_answers_total 1",
		`trimaran_shim_gateway_up{gateway="wss://` + gatewayAddr + `"} 1`, `trimaran_shim_memory_bytes{kind="request"} 0`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestAGatewayThatIsNotTrustedIsNotUsedAndTheLogSaysWhy(t *testing.T) {
	_, config := certificate(t, "kafka.internal")
	other, _ := certificate(t, "kafka.internal")
	g := newFakeGatewayTLS(t, config)
	log := start(t, "-listen=127.0.0.1:0", "-metrics-listen=127.0.0.1:0", "-dial-timeout=100ms", "-tls", "-gateways", g.Listener.Addr().String(), "-tls-ca", other, "-tls-server-name", "kafka.internal")
	log.find(t, `kind=certificate .*unknown authority`)
	if code, _ := get(t, strings.TrimSuffix(log.find(t, `msg=metrics url=(\S+)`), "metrics")+"readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d", code)
	}
	client := connect(t, log.find(t, `msg="shim started".* listen=(\S+)`))
	write(t, client, asked(apiMetadata, 1))
	wantClosed(t, client)
	log.find(t, `msg="client connection ended".*no gateway could be reached.*unknown authority`)
}

func TestListeningBeyondThisMachineIsPointedOut(t *testing.T) {
	g := newFakeGateway(t)
	log := start(t, "-listen=:0", "-gateways", g.Listener.Addr().String())
	log.find(t, `level=WARN .*without --advertise`)
}

func TestAPortThatIsTakenIsAFailure(t *testing.T) {
	g := newFakeGateway(t)
	var errOut bytes.Buffer
	taken := g.Listener.Addr().String()
	for _, args := range [][]string{{"-listen", taken}, {"-listen=127.0.0.1:0", "-metrics-listen", taken}} {
		if code := run(context.Background(), append(args, "-gateways", taken), noEnv, io.Discard, &errOut); code != 1 {
			t.Errorf("%v ends with %d: %s", args, code, errOut.String())
		}
	}
}

// The package comment's map names every file, and no other.
func TestTheMapIsTheFolder(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(source), "\npackage main")
	named := regexp.MustCompile(`\b\w+\.go\b`).FindAllString(comment, -1)
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go") {
			there = append(there, e.Name())
		}
	}
	slices.Sort(named)
	if !slices.Equal(named, there) {
		t.Errorf("the comment names %v, the folder has %v", named, there)
	}
}

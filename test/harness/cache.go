package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Cache is the folder for what is installed from registries: TRIMARAN_INTEROP_CACHE, or one below
// the user's own.
func Cache() (string, error) {
	cache := os.Getenv("TRIMARAN_INTEROP_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder (set TRIMARAN_INTEROP_CACHE): %w", err)
		}
		cache = filepath.Join(user, "trimaran-interop")
	}
	return filepath.Abs(cache)
}

// kafkaPom gathers a Kafka's jars. The version is put in by Maven.
const kafkaPom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.trimaran</groupId>
  <artifactId>oracle</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${kafka.version}</version>
    </dependency>
    <!-- Kafka's jars come without any that writes its log; this writes to standard error. -->
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
`

// mavenCopy is the plugin that copies jars, pinned like everything else.
const mavenCopy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"

// KafkaJars gives the folder with a Kafka's jars, from the cache or from Maven's repository.
func KafkaJars(version string) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	for _, need := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(need); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(cache, "oracle-"+version)
	// What is ready was gathered by the same pom, or is gathered again.
	lib, ready := filepath.Join(dir, "lib"), filepath.Join(dir, ".ready")
	if by, err := os.ReadFile(ready); err == nil && string(by) == kafkaPom {
		return lib, nil
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o777), os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(kafkaPom), 0o666)); err != nil {
		return "", err
	}
	if err := Tool(dir, "mvn", "-B", "-q", "-f", filepath.Join(dir, "pom.xml"), mavenCopy, "-DoutputDirectory="+lib, "-Dkafka.version="+version); err != nil {
		return "", err
	}
	return lib, os.WriteFile(ready, []byte(kafkaPom), 0o666)
}

// Tool runs a program to its end, for at most ten minutes.
func Tool(dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out[max(0, len(out)-2000):])))
	}
	return nil
}

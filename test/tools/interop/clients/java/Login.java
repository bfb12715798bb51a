import java.io.BufferedReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.AdminClient;

/** How a client logs in, over TLS: lines name=value of the file that INTEROP_LOGIN names. */
final class Login {
    private static Map<String, String> said() throws Exception {
        Map<String, String> said = new HashMap<>();
        if (System.getenv("INTEROP_LOGIN") != null) {
            try (BufferedReader in = Files.newBufferedReader(Paths.get(System.getenv("INTEROP_LOGIN")), StandardCharsets.UTF_8)) {
                for (String l = in.readLine(); l != null; l = in.readLine()) {
                    int equals = l.indexOf('=');
                    said.put(l.substring(0, equals), l.substring(equals + 1));
                }
            }
        }
        return said;
    }

    static String token() throws Exception {
        return said().get("token");
    }

    /** Nothing where the client does not log in. */
    static void secure(Properties p) throws Exception {
        Map<String, String> said = said();
        if (said.isEmpty()) {
            return;
        }
        String mechanism = said.get("mechanism");
        p.put("security.protocol", "SASL_SSL");
        p.put("sasl.mechanism", mechanism);
        // PEM files came with 2.7.
        p.put("ssl.truststore.location", said.get("truststore"));
        p.put("ssl.truststore.password", "interop");
        p.put("ssl.truststore.type", "PKCS12");
        if (mechanism.equals("OAUTHBEARER")) {
            p.put("sasl.jaas.config", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;");
            p.put("sasl.login.callback.handler.class", "TokenLogin");
            return;
        }
        String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
        p.put("sasl.jaas.config", "org.apache.kafka.common.security." + module + " required username=\"" + said.get("user")
            + "\" password=\"" + said.get("password") + "\";");
    }

    /** Step login. Before 1.0 (KIP-152) a client is not told that its login failed, and goes on trying. */
    static void step(Properties p) throws Exception {
        boolean silent = false;
        try {
            Class.forName("org.apache.kafka.common.errors.SaslAuthenticationException");
        } catch (ClassNotFoundException e) {
            silent = true;
        }
        p.put("request.timeout.ms", silent ? "2500" : "10000");
        try (AdminClient admin = AdminClient.create(p)) {
            System.out.println("# asking");
            admin.listTopics().names().get();
            System.out.println("# in");
        } catch (Exception e) {
            Throwable cause = e.getCause() == null ? e : e.getCause();
            String name = cause.getClass().getSimpleName();
            if (!name.equals("SaslAuthenticationException") && !(silent && name.equals("TimeoutException"))) {
                throw e;
            }
            System.out.println("# refused " + String.valueOf(cause).replaceAll("\\s+", " "));
        }
    }
}

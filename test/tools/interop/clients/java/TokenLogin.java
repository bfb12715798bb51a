import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerTokenCallback;

/** Logs in with the token that the driver made. For clients from 2.0 on (KIP-255). */
public final class TokenLogin implements AuthenticateCallbackHandler {
    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> entries) {
    }

    @Override
    public void handle(Callback[] callbacks) throws UnsupportedCallbackException {
        for (Callback c : callbacks) {
            if (c instanceof OAuthBearerTokenCallback) {
                ((OAuthBearerTokenCallback) c).token(new Token());
            } else if (!c.getClass().getSimpleName().equals("SaslExtensionsCallback")) {
                throw new UnsupportedCallbackException(c);
            }
        }
    }

    @Override
    public void close() {
    }

    private static final class Token implements OAuthBearerToken {
        @Override
        public String value() {
            try {
                return Login.token();
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }

        @Override
        public Set<String> scope() {
            return Collections.emptySet();
        }

        @Override
        public long lifetimeMs() {
            return System.currentTimeMillis() + 3_600_000;
        }

        @Override
        public String principalName() {
            return "alice";
        }

        @Override
        public Long startTimeMs() {
            return null;
        }
    }
}

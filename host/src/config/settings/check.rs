//! What is wrong with a configuration beyond what its types say.

use std::time::Duration;

use serde_json::json;

use super::{Settings, unknown_of_plugin};
use crate::{
    config::{
        Backend, Config, Origin, Otel, Topology,
        error::{ConfigError, is_slip},
        redis_url,
    },
    routes::Routes,
};

/// A store has better things to do than to renew entries.
const LEAST_HEARTBEAT: Duration = Duration::from_millis(100);

/// A request over loopback takes less.
const SHORTEST: Duration = Duration::from_millis(1);

const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Settings {
    /// What the types alone do not say.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        Routes::check(&self.config.route).map_err(|error| {
            let key = format!("route.{}.{}", error.index, error.key);
            ConfigError::setting(self.origin(&key), key, error.message)
        })?;
        self.check_times()?;
        self.check_services()?;
        self.check_discovery()?;
        self.check_slips()?;
        self.check_variables()?;
        self.check_checksum()
    }

    /// Clocks end, and a limit of nothing lets nothing pass.
    fn check_times(&self) -> Result<(), ConfigError> {
        let Config { server, client, discovery, .. } = &self.config;
        for (key, time, least) in [
            ("server.request-timeout", server.request_timeout, SHORTEST),
            ("server.drain-timeout", server.drain_timeout, Duration::ZERO),
            ("discovery.heartbeat", discovery.heartbeat, LEAST_HEARTBEAT),
            ("discovery.start-timeout", discovery.start_timeout, Duration::ZERO),
            ("client.connect-timeout", client.connect_timeout, SHORTEST),
            ("client.request-timeout", client.request_timeout, SHORTEST),
            ("client.eject-for", client.eject_for, Duration::ZERO),
        ] {
            if time < least {
                return Err(self.error(key, format!("wanted at least {least:?}, found {time:?}")));
            }
            if time > LONGEST {
                return Err(self.error(key, format!("wanted at most a year, found {time:?}")));
            }
        }
        Ok(())
    }

    /// With the `static` backend every group that will ever be is known now.
    fn check_services(&self) -> Result<(), ConfigError> {
        if !matches!(self.config.discovery.backend, Backend::Static) {
            return Ok(());
        }
        let known = &self.config.discovery.r#static;
        for (index, route) in self.config.route.iter().enumerate() {
            let Some(service) = route.service.as_ref().filter(|s| !known.contains_key(*s)) else {
                continue;
            };
            let key = format!("route.{index}.service");
            let message = format!("\"{service}\" has no instances under [discovery.static]");
            return Err(ConfigError::setting(self.origin(&key), key, message));
        }
        Ok(())
    }

    /// Others must be able to find this instance, where there are others.
    fn check_discovery(&self) -> Result<(), ConfigError> {
        let Config { discovery, server, .. } = &self.config;
        if matches!(discovery.backend, Backend::Static) {
            return Ok(());
        }
        if matches!(discovery.backend, Backend::Etcd) && discovery.etcd.endpoints.is_empty() {
            return Err(self.error("discovery.etcd.endpoints", "wanted one URL at least"));
        }
        let redis = &discovery.redis;
        if redis.tls.is_given() && !redis.url.is_tls() {
            let message =
                "is of no use to a redis:// URL; wanted discovery.redis.url with rediss://";
            return Err(self.error("discovery.redis.tls", message));
        }
        if matches!(redis.url.topology(), Topology::Cluster { .. })
            && !redis_url::has_hash_tag(&redis.prefix)
        {
            let message = format!(
                "wanted a hash tag, such as \"{{host}}\", so that one node of the cluster has all \
                 keys; found {:?}",
                redis.prefix
            );
            return Err(self.error("discovery.redis.prefix", message));
        }
        let group = &self.config.service.group;
        if group.is_empty() || group.contains(['/', ':']) {
            let message = format!("wanted a name without '/' and ':', found {group:?}");
            return Err(self.error("service.group", message));
        }
        if discovery.advertise.is_none() && server.listen.ip().is_unspecified() {
            let message = format!(
                "nobody can call {}; say in discovery.advertise how others reach this instance",
                server.listen
            );
            return Err(self.error("server.listen", message));
        }
        Ok(())
    }

    /// A key that is nearly one of the host's is no plugin's: a misspelt `enabled` would leave tracing off
    /// without a word, and a misspelt `sha256` let any file in.
    fn check_slips(&self) -> Result<(), ConfigError> {
        let slip = self.plugin.iter().find(|(key, _)| is_slip(key, Otel::KEYS.into_iter()));
        slip.map_or(Ok(()), |(key, entry)| {
            Err(unknown_of_plugin(key, entry, Otel::KEYS.into_iter()))
        })
    }

    /// A variable with one underscore where there should be two would say nothing. Others may begin with
    /// `HOST_` as well: only the name of a key is taken for one.
    fn check_variables(&self) -> Result<(), ConfigError> {
        let known = json!(Config::default());
        for (name, _) in &self.written.1 {
            let Some(place) = name.strip_prefix("HOST_") else { continue };
            let Some((section, key)) = place.split_once('_') else { continue };
            let [lower, kebab] = [section.to_lowercase(), key.to_lowercase().replace('_', "-")];
            let is_known = known.get(&lower).and_then(|keys| keys.get(&kebab)).is_some();
            // Those without a default are not among the defaults.
            if is_known || lower == "otel" && Otel::KEYS.contains(&kebab.as_str()) {
                let message =
                    format!("wanted two underscores after {section}, HOST_{section}__{key}");
                let origin = Origin::Variable(name.clone());
                return Err(ConfigError::setting(origin, format!("{lower}.{kebab}"), message));
            }
        }
        Ok(())
    }

    fn check_checksum(&self) -> Result<(), ConfigError> {
        let Some(sha256) = &self.config.otel.sha256 else { return Ok(()) };
        if sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(());
        }
        let message = format!("wanted 64 hexadecimal digits, found {sha256:?}");
        Err(ConfigError::setting(self.origin("otel.sha256"), "otel.sha256", message))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::settings::tests::parse;

    #[test]
    fn a_time_is_one_that_a_clock_can_wait_for_and_a_request_can_keep() {
        for (text, wanted) in [
            (
                "[server]\nrequest-timeout = \"0s\"",
                "server.request-timeout: wanted at least 1ms, found 0ns",
            ),
            (
                "[client]\nconnect-timeout = \"1us\"",
                "client.connect-timeout: wanted at least 1ms, found 1µs",
            ),
            (
                "[server]\ndrain-timeout = \"18446744073709551615s\"",
                "server.drain-timeout: wanted at most a year, found 18446744073709551615s",
            ),
        ] {
            assert_eq!(parse(text, &[]).unwrap_err(), format!("host.toml:2: {wanted}"));
        }
        assert!(parse("[server]\ndrain-timeout = \"0s\"", &[]).is_ok(), "it ends at once");
    }

    #[test]
    fn what_is_wrong_with_a_store_is_named_too() {
        for (text, wanted) in [
            (
                "[discovery.redis]\nurl = \"redis://a:26379,b:26379\"",
                "host.toml:2: discovery.redis.url: wanted the URL of one server, or of several with \
                 redis+sentinel:// or redis+cluster://",
            ),
            (
                "[discovery]\nbackend = \"redis\"\nredis.url = \"redis+cluster://a:1,b:1\"\n\
                 redis.prefix = \"{}x\"",
                "host.toml:4: discovery.redis.prefix: wanted a hash tag, such as \"{host}\", so that \
                 one node of the cluster has all keys; found \"{}x\"",
            ),
            (
                "[discovery]\nbackend = \"etcd\"\n[server]\nlisten = \"0.0.0.0:80\"",
                "host.toml:4: server.listen: nobody can call 0.0.0.0:80; say in \
                 discovery.advertise how others reach this instance",
            ),
            (
                "[discovery]\nbackend = \"etcd\"\n[service]\ngroup = \"a/b\"",
                "host.toml:4: service.group: wanted a name without '/' and ':', found \"a/b\"",
            ),
            (
                "[discovery]\nbackend = \"etcd\"\netcd.endpoints = []",
                "host.toml:3: discovery.etcd.endpoints: wanted one URL at least",
            ),
            (
                "[discovery]\nbackend = \"redis\"\nredis.tls = { ca = \"ca.pem\" }",
                "host.toml:3: discovery.redis.tls: is of no use to a redis:// URL; wanted \
                 discovery.redis.url with rediss://",
            ),
        ] {
            assert_eq!(parse(text, &[]).unwrap_err(), wanted, "{text}");
        }
    }

    #[test]
    fn a_store_may_come_to_know_a_group_that_is_not_known_yet() {
        let route = "[[route]]\npath = \"/a\"\nservice = \"later\"";
        assert!(parse(route, &[]).is_err());
        assert!(parse(route, &[("HOST_DISCOVERY__BACKEND", "redis")]).is_ok());
    }

    #[test]
    fn no_key_of_the_plugin_is_taken_for_a_misspelt_one_of_the_host() {
        let sample = include_str!("../../../config/host.toml");
        let (_, keys) = sample.split_once("Those of libplugin_otel.so:").unwrap();
        let keys: Vec<_> =
            keys.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" = ")).collect();
        assert!(keys.len() > 30, "{keys:?}");
        for (key, _) in keys {
            assert_eq!(parse(&format!("[otel]\n{key} = 1"), &[]).err(), None, "{key}");
        }
    }

    #[test]
    fn a_variable_with_one_underscore_too_few_is_no_silent_one() {
        for (name, wanted) in [
            (
                "HOST_OTEL_ENABLED",
                "otel.enabled: wanted two underscores after OTEL, HOST_OTEL__ENABLED",
            ),
            (
                "HOST_SERVER_MAX_IN_FLIGHT",
                "server.max-in-flight: wanted two underscores after SERVER, \
                 HOST_SERVER__MAX_IN_FLIGHT",
            ),
            (
                "HOST_OTEL_SHA256",
                "otel.sha256: wanted two underscores after OTEL, HOST_OTEL__SHA256",
            ),
        ] {
            assert_eq!(parse("", &[(name, "1")]).unwrap_err(), format!("${name}: {wanted}"));
        }
        // Kubernetes has such for a service that is called host.
        for name in ["HOST_SERVICE_HOST", "HOST_SERVICE_PORT", "HOST_PORT", "HOST_IP", "HOST_"] {
            assert!(parse("", &[(name, "1")]).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_key_that_is_nearly_one_of_the_host_is_refused_whether_tracing_is_on_or_off() {
        for enabled in [false, true] {
            for (key, meant) in [
                ("enabeld", "enabled"),
                ("enable", "enabled"),
                ("libary", "library"),
                ("requierd", "required"),
                ("sha-256", "sha256"),
            ] {
                let error =
                    parse(&format!("[otel]\nenabled = {enabled}\n{key} = 1"), &[]).unwrap_err();
                let wanted = format!("otel.{key}: unknown key, did you mean \"{meant}\"?");
                assert_eq!(error, format!("host.toml:3: {wanted}"));
            }
        }
        let error = parse("", &[("HOST_OTEL__ENABELD", "true")]).unwrap_err();
        let wanted = "$HOST_OTEL__ENABELD: otel.enabeld: unknown key, did you mean \"enabled\"?";
        assert_eq!(error, wanted);
    }

    #[test]
    fn a_key_that_is_like_none_of_the_host_is_the_plugins() {
        for key in ["of-another-plugin", "retries", "resource", "is-enabled"] {
            assert_eq!(parse(&format!("[otel]\n{key} = 1"), &[]).err(), None, "{key}");
        }
    }
}

//! The protocol of AWS X-Ray's centralized sampling, as an OpenTelemetry collector with the extension
//! `awsproxy`, or the X-Ray daemon, passes it on.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Uri;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tokio::{
    select,
    time::{self, Instant, MissedTickBehavior},
};

use super::{
    Asker, Remote, Server, Strategy,
    documents::{self, Now},
};
use crate::{sampling::Root, xray::Manifest};

/// How often statistics are reported, unless the server says how often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How many documents one report may hold.
const MOST_DOCUMENTS: usize = 25;

/// Asks until dropped.
///
/// # Errors
/// Why it cannot be asked.
pub(super) async fn ask(asker: &Asker, remote: &Remote) -> Result<Infallible, String> {
    let mut talk = Talk::new(asker, remote)?;
    let mut rules = time::interval(remote.every);
    rules.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut report = Instant::now() + talk.report_every;
    loop {
        select! {
            _ = rules.tick() => talk.ask_for_rules().await,
            () = time::sleep_until(report) => {
                if talk.report().await == Rules::Changed {
                    rules.reset_immediately();
                }
                report = Instant::now() + talk.report_every;
            }
        }
    }
}

/// What is known of a server, and to it.
struct Talk<'a> {
    asker: &'a Asker,
    remote: &'a Remote,
    server: Server,
    rules: Uri,
    targets: Uri,
    /// What this process is to X-Ray, in 24 digits.
    client: String,
    manifest: Arc<Manifest>,
    /// The last change of rules that they contain, in seconds since the Unix epoch.
    modified: f64,
    /// As the server said last; until then not less often than rules are asked for.
    report_every: Duration,
    gives_rules: Option<bool>,
    gives_targets: Option<bool>,
}

/// What a report tells of the rules.
#[derive(PartialEq, Eq)]
enum Rules {
    Known,
    Changed,
}

impl<'a> Talk<'a> {
    fn new(asker: &'a Asker, remote: &'a Remote) -> Result<Self, String> {
        let url = |call: &str| {
            let url = format!("{}/{call}", remote.endpoint.trim_end_matches('/'));
            url.parse::<Uri>().map_err(|error| error.to_string())
        };
        let id = RandomIdGenerator::default().new_trace_id().to_string();
        Ok(Self {
            asker,
            remote,
            server: Server::new(asker, remote)?,
            rules: url("GetSamplingRules")?,
            targets: url("SamplingTargets")?,
            client: id[..24].to_owned(),
            manifest: Arc::new(Manifest::default()),
            modified: now().wall,
            report_every: REPORT_EVERY.min(remote.every),
            gives_rules: None,
            // Who gives rules is taken to give targets.
            gives_targets: Some(true),
        })
    }

    async fn ask_for_rules(&mut self) {
        let asked = now();
        let answer = self.server.post(&self.rules, "{}".to_owned()).await;
        match answer.and_then(|body| documents::rules(&body, &self.asker.service)) {
            Ok(rules) => {
                self.obey(self.manifest.renewed(rules, asked.instant));
                self.asker.note(self.remote, &mut self.gives_rules, Ok(()));
            }
            Err(reason) => {
                let reason = format!("GetSamplingRules: {reason}");
                self.asker.note(self.remote, &mut self.gives_rules, Err(&reason));
            }
        }
    }

    /// Reports what was done, and does from now on what is answered. What cannot be reported is with
    /// the next report.
    async fn report(&mut self) -> Rules {
        let mut rules = Rules::Known;
        for part in self.manifest.counts().chunks(MOST_DOCUMENTS) {
            let report = documents::statistics(&self.client, part, now());
            let answer = self.server.post(&self.targets, report).await;
            match answer.and_then(|body| documents::targets(&body, now())) {
                Ok(targets) => {
                    self.manifest.reported(part);
                    self.obey(self.manifest.aimed(&targets.all));
                    self.report_every = targets.interval.unwrap_or(self.report_every);
                    if targets.modified > self.modified {
                        self.modified = targets.modified;
                        rules = Rules::Changed;
                    }
                    self.asker.note(self.remote, &mut self.gives_targets, Ok(()));
                }
                Err(reason) => {
                    let reason = format!("SamplingTargets: {reason}");
                    self.asker.note(self.remote, &mut self.gives_targets, Err(&reason));
                }
            }
        }
        rules
    }

    fn obey(&mut self, manifest: Manifest) {
        self.manifest = Arc::new(manifest);
        let root = Root::Xray(Arc::clone(&self.manifest));
        self.asker.obey(self.remote, Strategy { root, operations: Vec::new() });
    }
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: std::time::Instant::now(), wall: wall.as_secs_f64() }
}

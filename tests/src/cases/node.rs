//! A node on which ordinary software runs, as it is installed and with clients.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::lab::Lab;
use super::servers::{APACHE, FLASK, MARIADB, NGINX, NODE, POSTGRESQL, RABBITMQ, REDIS, SSHD, Software, TOMCAT};
use super::software::{Clients, PROOF, Server, matters, send_row, with_cron, with_health_check};
use crate::container::Container;
use crate::engine;
use crate::program::wait_for;
use crate::protocol::Message;

/// How many containers of each server there are. With those of Docker that have health checks and one with a
/// scheduler, these are thirty.
const SERVERS: [(&Software, usize); 10] = [
    (&NGINX, 5),
    (&REDIS, 4),
    (&POSTGRESQL, 3),
    (&MARIADB, 1),
    (&RABBITMQ, 1),
    (&APACHE, 3),
    (&TOMCAT, 1),
    (&SSHD, 2),
    (&FLASK, 3),
    (&NODE, 1),
];
const WITH_HEALTH_CHECK: usize = 5;
const HEALTH_CHECK: &str = "30s";

/// How long the node is observed, from before the start of its first container on.
const OBSERVED: Duration = Duration::from_secs(60 * 60);
/// How many lines may be above info in this time.
const MOST: usize = 20;
/// How long the clients of a server rest after each answer.
const REST: Duration = Duration::from_secs(10);
/// How long the last lines may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A container of the node, with its clients if it has a server.
enum Member {
    Server(&'static str, Server),
    Checked(Clients, engine::Container),
    Scheduler(Container),
}

impl Member {
    fn name(&self) -> &'static str {
        match self {
            Self::Server(name, _) => name,
            Self::Checked(..) => "Redis with a health check",
            Self::Scheduler(_) => "cron",
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Server(_, server) => &server.container.id,
            Self::Checked(_, container) => &container.id,
            Self::Scheduler(container) => &container.id,
        }
    }

    /// Whether a line is about it.
    fn is_in(&self, line: &Value) -> bool {
        [&line["container"], &line["detail"]["container"]].iter().any(|told| told["id"] == self.id())
    }

    /// Expects its server to work still, and makes what must be told.
    fn prove(&self) -> Result<()> {
        let proof = ["create", PROOF];
        match self {
            Self::Server(_, server) => {
                server.clients.have(1)?;
                server.container.service_does(&proof)
            }
            Self::Checked(clients, container) => {
                clients.have(1)?;
                container.service_does(&proof)
            }
            Self::Scheduler(container) => container.service_does(&proof),
        }?;
        Ok(())
    }
}

/// Thirty containers start and work, for an hour in all, and hardly anything is told.
pub(super) fn of_thirty_containers(lab: &mut Lab) -> Result<()> {
    let (mut members, mut lines, mut start) = (Vec::new(), Vec::new(), Instant::now());
    // When it is stopped, the sensor publishes all counts once more, which is no line of this hour.
    lab.as_on_a_node(|lab| {
        start = Instant::now();
        start_all(lab, &mut members)?;
        let row = format!("{} containers have started after {} s", members.len(), start.elapsed().as_secs());
        Message::Observed { row }.send()?;
        thread::sleep(OBSERVED.saturating_sub(start.elapsed()));
        members.iter().try_for_each(Member::prove)?;
        lines = wait_for("the proofs", PATIENCE, || {
            let lines = read(lab.sensor()?.lines())?;
            let proofs = lines.iter().filter(|line| is_proof(line)).count();
            Ok((proofs == members.len()).then_some(lines))
        })?;
        Ok(())
    })?;
    lines.retain(|line| !is_proof(line));
    for name in members.iter().map(Member::name).collect::<BTreeSet<_>>() {
        let is_of = |line: &&Value| members.iter().any(|member| member.name() == name && member.is_in(line));
        send_row(name, start, &lines.iter().filter(is_of).cloned().collect::<Vec<_>>())?;
    }
    let told: Vec<_> = lines.iter().filter(|line| is_told(line)).collect();
    Message::Observed { row: format!("lines above info: {}", told.len()) }.send()?;
    for line in &told {
        let name = members.iter().find(|member| member.is_in(line)).map_or("another", Member::name);
        let row = format!("{name}, revision {}, {}: {}", line["revision"], line["severity"], line["message"]);
        Message::Observed { row }.send()?;
    }
    ensure!(told.len() <= MOST, "{} lines are above info", told.len());
    ensure!(told.iter().any(|line| matters(line)), "Node.js runs a shell, of which nothing is told");
    Ok(())
}

fn start_all(lab: &mut Lab, members: &mut Vec<Member>) -> Result<()> {
    for (software, count) in SERVERS {
        for _ in 0..count {
            members.push(Member::Server(software.name, Server::start_after(lab, "", software, REST)?));
        }
    }
    for _ in 0..WITH_HEALTH_CHECK {
        let (clients, container) = with_health_check(lab, HEALTH_CHECK, REST)?;
        members.push(Member::Checked(clients, container));
    }
    members.push(Member::Scheduler(with_cron(lab)?));
    Ok(())
}

/// The lines of a sensor.
fn read(path: &Path) -> Result<Vec<Value>> {
    fs::read_to_string(path)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn is_proof(line: &Value) -> bool {
    line["file"]["path"] == PROOF
}

/// Whether a line is above info.
fn is_told(line: &Value) -> bool {
    [&line["severity"], &line["detail"]["severity"]].iter().any(|severity| severity.is_string() && **severity != "info")
}

//! The servers that `software` keeps busy, and how they are used.

/// A server, and how it is used.
pub(super) struct Software {
    pub(super) name: &'static str,
    /// What the entrypoint does first.
    preparation: &'static str,
    /// The command line of the server, which the entrypoint becomes then.
    server: &'static str,
    /// A client that makes one request.
    pub(super) client: &'static str,
    /// The first line of the answer.
    pub(super) answer: &'static str,
    /// How many requests it answers at least while nothing else happens.
    pub(super) requests: u64,
    /// Whether it needs capabilities that containers of the tests do not have by default.
    pub(super) is_privileged: bool,
}

/// How many requests are many for most of them.
const MANY: u64 = 50;

/// A web server with a cache. The entrypoint makes its configuration.
pub(super) const NGINX: Software = Software {
    name: "nginx",
    preparation: "cat > /data/nginx.conf << END
user nobody nogroup; daemon off; pid /run/nginx.pid; error_log stderr; events {}
http {
    access_log /var/log/nginx/access.log;
    client_body_temp_path /var/cache/nginx/client_temp; proxy_temp_path /var/cache/nginx/proxy_temp;
    fastcgi_temp_path /var/cache/nginx/fastcgi_temp; uwsgi_temp_path /var/cache/nginx/uwsgi_temp;
    scgi_temp_path /var/cache/nginx/scgi_temp; proxy_cache_path /var/cache/nginx/pages keys_zone=pages:1m;
    include /etc/nginx/conf.d/*.conf;
    server { listen 8080; location / { proxy_pass http://127.0.0.1:8081; proxy_cache pages; proxy_cache_valid 1s; } }
}
END
echo 'server { listen 8081; root /srv; }' > /etc/nginx/conf.d/default.conf",
    server: "/usr/sbin/nginx -c /data/nginx.conf",
    client: "/bin/busybox wget -q -O - http://127.0.0.1:8080/mark",
    answer: "changed by the attacker",
    requests: MANY,
    is_privileged: false,
};

pub(super) const REDIS: Software = Software {
    name: "Redis",
    preparation: "/bin/busybox chown -R nobody /data",
    server: "setpriv --reuid=nobody --regid=nogroup --clear-groups \
        /usr/bin/redis-server --dir /data --save 1 1 --appendonly yes",
    client: "redis-cli set visit now",
    answer: "OK",
    requests: MANY,
    is_privileged: false,
};

pub(super) const POSTGRESQL: Software = Software {
    name: "PostgreSQL",
    preparation: "/bin/busybox mkdir -p /data/base /run/postgresql
/bin/busybox chown nobody /data/base /run/postgresql
as_user='setpriv --reuid=nobody --regid=nogroup --clear-groups'
$as_user /usr/lib/postgresql/15/bin/initdb -D /data/base --no-sync",
    server: "$as_user /usr/lib/postgresql/15/bin/postgres -D /data/base -h '*' -k /run/postgresql",
    // It sorts in temporary files.
    client: "/usr/lib/postgresql/15/bin/psql -h 127.0.0.1 -U nobody -tAq postgres -c \"
        set work_mem = '64kB'; create table if not exists visits (at int);
        insert into visits select generate_series(1, 10);
        select count(*) from (select n from generate_series(1, 20000) n order by md5(n::text) offset 5) sorted\"",
    answer: "19995",
    requests: MANY,
    is_privileged: false,
};

/// A Redis that may be told to write files anywhere, as older versions may.
pub(super) const EXPOSED_REDIS: Software = Software {
    preparation: "",
    server: "/usr/bin/redis-server --dir /data --enable-protected-configs yes --save 3600 1",
    ..REDIS
};

/// A web application. Like many images, this one says that compiled modules are not to be kept.
pub(super) const FLASK: Software = Software {
    name: "Flask",
    preparation: "export PYTHONDONTWRITEBYTECODE=1",
    server: "python3 /srv/app.py",
    client: "/bin/busybox wget -q -O - http://127.0.0.1:8080/",
    answer: "the answer is 42",
    requests: MANY,
    is_privileged: false,
};

/// A database. Its clients sort in temporary files.
pub(super) const MARIADB: Software = Software {
    name: "MariaDB",
    preparation: "/bin/busybox mkdir -p /data/base /run/mysqld
/bin/busybox chown nobody /data/base /run/mysqld
as_user='setpriv --reuid=nobody --regid=nogroup --clear-groups'
$as_user mariadb-install-db --datadir=/data/base --rpm --auth-root-authentication-method=normal --skip-test-db",
    server: "$as_user /usr/sbin/mariadbd --datadir=/data/base --socket=/run/mysqld/mysqld.sock",
    client: "mariadb -h 127.0.0.1 -u root -N -e \"
        set tmp_memory_table_size = 16384; set sort_buffer_size = 16384;
        create database if not exists site; use site; create table if not exists visits (at int);
        insert into visits select seq from seq_1_to_10;
        select count(*) from (
            select distinct md5(seq) as hash from seq_1_to_5000 order by hash limit 5, 5000) sorted\"",
    answer: "4995",
    requests: MANY,
    is_privileged: false,
};

/// A message broker. Its clients talk STOMP.
pub(super) const RABBITMQ: Software = Software {
    name: "RabbitMQ",
    preparation: "/bin/busybox mkdir -p /data/broker /var/log/rabbitmq
export HOME=/data/broker RABBITMQ_MNESIA_BASE=/data/broker/mnesia RABBITMQ_PID_FILE=/data/broker/pid RABBITMQ_LOGS=-
export RABBITMQ_ENABLED_PLUGINS_FILE=/etc/rabbitmq/enabled_plugins",
    server: "/usr/lib/rabbitmq/bin/rabbitmq-server",
    client: "printf 'CONNECT\\nlogin:guest\\npasscode:guest\\n\\n\\0DISCONNECT\\n\\n\\0' | \
        /bin/busybox nc -w 5 127.0.0.1 61613",
    answer: "CONNECTED",
    requests: MANY,
    is_privileged: false,
};

/// A web server with threads, which switches to another user.
pub(super) const APACHE: Software = Software {
    name: "Apache",
    preparation: "/bin/busybox mkdir -p /var/log/apache2; cat > /data/apache.conf << END
ServerName lab
ServerRoot /usr/lib/apache2
PidFile /run/apache2.pid
DefaultRuntimeDir /run
Listen 8080
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
User nobody
Group nogroup
ErrorLog /var/log/apache2/error.log
CustomLog /var/log/apache2/access.log \"%h %t %r %>s\"
DocumentRoot /srv
<Directory /srv>
Require all granted
</Directory>
END",
    server: "/usr/sbin/apache2 -f /data/apache.conf -DFOREGROUND",
    client: "/bin/busybox wget -q -O - http://127.0.0.1:8080/mark",
    answer: "changed by the attacker",
    requests: MANY,
    is_privileged: false,
};

/// A web application that runs a command of its own for each request.
pub(super) const NODE: Software = Software {
    name: "Node.js",
    preparation: "",
    server: "node /srv/app.js",
    client: "/bin/busybox wget -q -O - http://127.0.0.1:8080/",
    answer: "the answer is 42",
    requests: MANY,
    is_privileged: false,
};

/// A web server in Java. Like its official image, this one keeps its logs beside the applications.
pub(super) const TOMCAT: Software = Software {
    name: "Tomcat",
    preparation: "export CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/srv/tomcat CATALINA_TMPDIR=/tmp
export JRE_HOME=/usr/lib/jvm/java-17-openjdk-amd64",
    server: "/usr/share/tomcat10/bin/catalina.sh run",
    client: "/bin/busybox wget -q -O - http://127.0.0.1:8080/index.html",
    answer: "the answer is 42",
    requests: MANY,
    is_privileged: false,
};

/// A server to log in to. Its keys are on the volume. Its clients leave before they log in. It changes its root, which
/// Docker allows.
pub(super) const SSHD: Software = Software {
    name: "sshd",
    preparation: "/bin/busybox mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f /data/host
ssh-keygen -q -t ed25519 -N '' -f /data/user",
    server: "/usr/sbin/sshd -D -e -f /dev/null -p 2222 -o UsePAM=no -o HostKey=/data/host -o StrictModes=no \
        -o AuthorizedKeysFile=/data/user.pub -o MaxStartups=100",
    client: "echo | /bin/busybox nc -w 5 127.0.0.1 2222 | /bin/busybox cut -c 1-7",
    answer: "SSH-2.0",
    requests: MANY,
    is_privileged: true,
};

/// A compiler, with its sources and what it makes on the volume.
pub(super) const GCC: Software = Software {
    name: "gcc",
    preparation: "echo 'int main(void) { return 0; }' > /data/program.c",
    server: "node /srv/runner.js /usr/bin/gcc -o /data/program /data/program.c",
    client: RUN,
    answer: "the answer is 42",
    requests: MANY,
    is_privileged: false,
};

/// What rotates and compresses the logs of a container. It is told to do so each time.
pub(super) const LOGROTATE: Software = Software {
    name: "logrotate",
    preparation: "/bin/busybox mkdir -p /var/log/app /var/lib/logrotate; echo started > /var/log/app/app.log",
    server: "node /srv/runner.js /usr/sbin/logrotate --force /srv/logrotate.conf",
    client: RUN,
    answer: "the answer is 42",
    requests: MANY,
    is_privileged: false,
};

/// A browser that renders pages. On an emulated machine, each takes a minute.
pub(super) const CHROMIUM: Software = Software {
    name: "Chromium",
    preparation: "export HOME=/home/app; /bin/busybox mkdir -p /home/app; /bin/busybox chown nobody /home/app",
    server: "setpriv --reuid=nobody --regid=nogroup --clear-groups node /srv/runner.js \
        /usr/lib/chromium/chromium --headless --no-sandbox --disable-gpu --dump-dom http://127.0.0.1:8080/page",
    client: RUN,
    answer: "the answer is 42",
    requests: 1,
    is_privileged: false,
};

/// A request that makes a server run its program.
const RUN: &str = "/bin/busybox wget -q -O - http://127.0.0.1:8080/run";

impl Software {
    /// The script of the entrypoint, which runs these commands, too. The tool listens only after the server, so that it
    /// does not end the start-up.
    pub(super) fn entrypoint(&self, commands: &str) -> String {
        const TOOL: &str = "(until /bin/busybox grep -q ' 0A ' /proc/net/tcp /proc/net/tcp6; do /bin/busybox sleep 1; \
            done; exec /usr/bin/tool serve) &";
        format!("{}\n{commands}\n{TOOL}\nexec {}", self.preparation, self.server)
    }
}

# BenchRelays.pm - starts the relays that are compared: ours, and those of Debian's packages
#
# Each is { name, mode, daemon, args }: `args` is what bench/load needs to reach it. All listen on ports of the kernel's
# choice on 127.0.0.1 and log nothing for a connection, but ours, which runs with its default log level.
package BenchRelays;
use strict;
use warnings;
use Exporter 'import';
use HyperTest;

our @EXPORT = qw(peer relay_start relay_stop relay_pids relay_args);

my $n;

# A program of a peer: as ./dev bench unpacked it, else as it is installed.
sub peer {
	my ($path) = @_;
	my $own = build() . "/peers/root$path";
	return -e $own ? $own : $path;
}

sub peer_env { return { LD_LIBRARY_PATH => join ':', glob build() . '/peers/root/{usr/,}lib/*-linux-gnu' } }

# Without a connection: a relay would dial its backend for it, again and again.
sub listens {
	my ($port) = @_;
	my $line = sprintf '0100007F:%04X 00000000:0000 0A', $port;
	return wait_until { index(read_file('/proc/net/tcp'), $line) >= 0 } 10;
}

# A relay that dials `backend` for each connection on `port`.
sub forward {
	my ($name, $cmd, $port, $backend) = @_;
	my $d = start('relay-' . ++$n, $cmd, ready => 0, env => peer_env());
	listens($port) or die "$name does not listen:\n" . $d->log_tail;
	return { name => $name, mode => 'forward', daemon => $d, args => [ 'mode=forward', "dial=$port", "listen=$backend" ] };
}

sub haproxy {
	my ($name, $threads, $options) = @_;
	my ($port, $backend) = (free_port(), free_port());
	my $conf = write_file(tmp() . '/relay-' . ($n // 0) . '-haproxy.cfg', <<"CFG");
global
	nbthread $threads
	maxconn 4500
defaults
	mode tcp
	timeout connect 5s
	timeout client 10m
	timeout server 10m
$options
frontend in
	bind 127.0.0.1:$port
	default_backend out
backend out
	server s 127.0.0.1:$backend
CFG
	return forward($name, [ peer('/usr/sbin/haproxy'), '-db', '-q', '-f', $conf ], $port, $backend);
}

sub nginx {
	my ($name) = @_;
	my ($port, $backend) = (free_port(), free_port());
	my $dir = tmp() . '/relay-' . ($n // 0) . '-nginx';
	my $module = peer('/usr/lib/nginx/modules/ngx_stream_module.so');
	my $conf = write_file("$dir/nginx.conf", <<"CFG");
load_module $module;
daemon off;
worker_processes 2;
worker_rlimit_nofile 20000;
pid $dir/pid;
error_log $dir/error.log crit;
events { worker_connections 18000; }
stream {
	access_log off;
	proxy_half_close on;
	server { listen 127.0.0.1:$port; proxy_pass 127.0.0.1:$backend; proxy_timeout 10m; }
}
CFG
	return forward($name, [ peer('/usr/sbin/nginx'), '-c', $conf, '-p', $dir, '-e', "$dir/error.log" ], $port, $backend);
}

sub socat {
	my ($name) = @_;
	my ($port, $backend) = (free_port(), free_port());
	return forward($name, [ peer('/usr/bin/socat'), '-b', '65536', '-t', '20', "TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay",
			"TCP:127.0.0.1:$backend,nodelay" ], $port, $backend);
}

sub direct {
	my ($name) = @_;
	my $port = free_port();
	return { name => $name, mode => 'forward', args => [ 'mode=forward', "dial=$port", "listen=$port" ] };
}

sub strelay {
	my ($name) = @_;
	my $port = free_port();
	my $dir = tmp() . '/relay-' . ($n // 0) . '-strelay';
	write_file("$dir/keys/.keep", '');
	for my $peer (1, 2) {
		my ($code, undef, $err) = run_program([ qw(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj),
				"/CN=peer-$peer", '-keyout', "$dir/peer-$peer.key", '-out', "$dir/peer-$peer.crt" ]);
		die "openssl: $err" if $code;
	}
	my $d = start('relay-' . ++$n, [ peer('/usr/bin/strelaysrv'), '-pools=', '-status-srv=', '-listen', "127.0.0.1:$port", '-keys', "$dir/keys" ], ready => 0);
	listens($port) or die "strelaysrv does not listen:\n" . $d->log_tail;
	return { name => $name, mode => 'preamble', daemon => $d, port => $port, dir => $dir, args => [ 'mode=preamble', "dial=$port" ] };
}

# Our proxy: options tls (both control plane sides), more (settings of `public`), log_level, under (words before the command), env.
sub ours {
	my ($name, %opt) = @_;
	my ($hyper, $port, $rpc) = (free_port(), free_port(), free_port());
	my $dir = tmp() . '/relay-' . ($n // 0) . '-hyper';
	my ($scheme, $c, @tls, @args) = ('http', '', '', '');
	if ($opt{tls}) {
		($scheme, $c) = ('https', certs());
		my $own = qq(ca_certificate_files = [ "$c/root.crt" ]; certificate_file = "$c/public-proxy-1.ga.crt"; key_file = "$c/public-proxy-1.ga.key";);
		@tls = ("tls = { $own };", qq(tls = { $own server_name = "public-proxy-1.ga"; };));
		@args = ("ca=$c/root.crt", "cert=$c/public-proxy-1.ga.crt", "key=$c/public-proxy-1.ga.key");
	}
	write_file("$dir/001.cfg", ($opt{log_level} ? qq(log_level = "$opt{log_level}";\n) : '')
		. qq(public = { name = "public-proxy-1.ga"; internal_bind_address = "127.0.0.1:$port"; internal_endpoint = "127.0.0.1:$port";
	) . ($opt{quotas} ? '' : 'token_timeout = 600.0; max_tokens_per_operator = 0; max_parked_per_operator = 0; # one operator plays all of them') . qq(
	jsonrpc_server = { bind_address = "127.0.0.1:$rpc"; $tls[0] ) . ($opt{rpc} // '') . qq( };
	jsonrpc_client = { endpoint = "$scheme://localhost:$hyper/jsonrpc"; $tls[1] };
	) . ($opt{more} // '') . "};\n");
	my $d = start('relay-' . ++$n, [ @{ $opt{under} // [] }, program('proxy'), 'run', 'public' ], env => { PROXY_SETTINGS => $dir, %{ $opt{env} // {} } }, ready => 0);
	listens($_) or die "the proxy does not listen:\n" . $d->log_tail for $port, $rpc;
	# The workers' start: a log level above `info` tells nothing of it.
	wait_until { children_of($d->pid) >= 1 } 10;
	return { name => $name, mode => 'token', daemon => $d,
		args => [ 'mode=token', "dial=$port", "rpc=$rpc", "hyper=$hyper", grep { length } @args ] };
}

my $forced = "\toption splice-request\n\toption splice-response";

# The master alone under callgrind. bench/exec_self.c says what the preloaded lines are for.
sub callgrind {
	my $so = tmp() . '/exec_self.so';
	my ($code, undef, $err) = run_program([ qw(cc -O2 -shared -fPIC -o), $so, source() . '/bench/exec_self.c' ]);
	die "cc: $err" if $code;
	return (under => [ qw(valgrind -q --tool=callgrind), '--callgrind-out-file=' . tmp() . '/callgrind.%p' ],
		env => { LD_PRELOAD => $so, BENCH_EXE => program('proxy') });
}

my %make = (
	'hyper' => sub { ours(@_) },
	'hyper, quotas' => sub { ours(@_, quotas => 1) },
	'hyper, 1 worker' => sub { ours(@_, more => 'workers = 1;') },
	'hyper, copy_mode' => sub { ours(@_, more => 'copy_mode = true;') },
	'hyper, splice only' => sub { ours(@_, more => 'copy_small_messages = false;') },
	'hyper, 1 worker, splice only' => sub { ours(@_, more => 'workers = 1; copy_small_messages = false;') },
	'hyper, max_parked 12000' => sub { ours(@_, rpc => 'max_connections = 256;', more => 'max_pairs = 256; max_pipes = 128; max_parked = 12000;') },
	'hyper, max_pairs 9500' => sub { ours(@_, rpc => 'max_connections = 256;', more => 'max_pairs = 9500; max_pipes = 128; max_unauthenticated = 256; max_parked = 256;') },
	'hyper, mTLS' => sub { ours(@_, tls => 1) },
	'hyper, log warn' => sub { ours(@_, log_level => 'warn') },
	'hyper, callgrind' => sub { ours(@_, callgrind()) },
	'hyper, callgrind, mTLS' => sub { ours(@_, tls => 1, callgrind()) },
	'HAProxy copy 1t' => sub { haproxy(@_, 1, '') },
	'HAProxy copy 2t' => sub { haproxy(@_, 2, '') },
	'HAProxy splice-auto 2t' => sub { haproxy(@_, 2, "\toption splice-auto") },
	'HAProxy splice 1t' => sub { haproxy(@_, 1, $forced) },
	'HAProxy splice 2t' => sub { haproxy(@_, 2, $forced) },
	'nginx stream' => sub { nginx(@_) },
	'socat' => sub { socat(@_) },
	'strelaysrv' => sub { strelay(@_) },
	'direct' => sub { direct(@_) },
);

sub relay_start { my ($name) = @_; return ($make{$name} // die "no relay `$name`\n")->($name) }

sub relay_stop { my ($r) = @_; $r->{daemon}->kill_group if $r->{daemon}; return }

# The processes whose CPU and memory count.
sub tree { my ($pid) = @_; return ($pid, map { tree($_) } children_of($pid)) }
sub relay_pids { my ($r) = @_; return $r->{daemon} ? tree($r->{daemon}->pid) : () }

# Arguments of load for so many pairs.
sub relay_args {
	my ($r, $pairs) = @_;
	my @args = (@{ $r->{args} }, map { "pid=$_" } $r->{daemon} ? $r->{daemon}->pid : ());
	return @args if $r->{mode} ne 'preamble';
	my ($code, $out, $err) = run_program([ source() . '/bench/strelay', $r->{port}, $pairs + 8, $r->{dir} ]);
	die "bench/strelay: $err" if $code;
	return (@args, 'preambles=' . write_file("$r->{dir}/preambles", $out));
}

1;

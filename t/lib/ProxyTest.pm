# ProxyTest.pm - one real `proxy run public`; the test itself plays A, B and the proxy's hyper
#
#   my $p = proxy(workers => 2);
#   my $ask = $p->ask;                      # A's requestConnection, over the proxy's JSON-RPC
#   my $told = $p->told;                    # what the proxy sends to its hyper for B
#   $told->answer;                          # B's answer
#   my $r = $ask->answer;                   # A's answer: { http, result or error }
#   my $sock = $p->come($token);            # a party's connection with its token
#
# Everything happens in this one process, step by step, so each order can be made.
package ProxyTest;
use strict;
use warnings;
use Exporter 'import';
use HyperTest qw(:DEFAULT send_all reset_socket);
use IO::Socket::IP ();
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(proxy client joined reset_socket send_all stop_process keep_writing stop_writers);

use constant TOKEN_S => 10; # seconds; a test that waits for no token's end has time, whatever else the machine does

$SIG{PIPE} = 'IGNORE';
my $n;

# Options: workers, token_timeout, accept_timeout, drain_timeout (seconds, 0: TERM resets pairs at once); more => further settings of `public`; outer => settings beside it; tls => 1; start => 0;
# hyper => a port on which somebody else plays the proxy's hyper; log_level; env => {}; wrap => [ a command before ours ].
sub proxy {
	my (%opt) = @_;
	my $name = 'proxy' . ($n++ ? "-$n" : '');
	my $p = bless { opt => \%opt, name => $name, dir => tmp() . "/$name", hyper_port => $opt{hyper} }, 'ProxyTest';
	$p->be_hyper if !$opt{hyper};
	my ($c, $scheme, @tls) = ('', 'http', '', '');
	if ($opt{tls}) {
		$scheme = 'https';
		$c = certs();
		my $own = qq(ca_certificate_files = [ "$c/root.crt" ]; certificate_file = "$c/public-proxy-1.ga.crt"; key_file = "$c/public-proxy-1.ga.key";);
		@tls = ("tls = { $own };", qq(tls = { $own server_name = "public-proxy-1.ga"; };));
	}
	my $endpoint = $opt{endpoint} // '127.0.0.1:0';
	$p->{settings} = 'log_level = "' . ($opt{log_level} // 'debug') . qq(";\n) . qq(public = { name = "public-proxy-1.ga";\n)
	    . 'workers = ' . ($opt{workers} // 2) . ";\n"
	    . qq(internal_bind_address = "$endpoint"; internal_endpoint = "$endpoint";\n)
	    . 'token_timeout = ' . sprintf('%.2f', ($opt{token_timeout} // TOKEN_S) * slow_factor()) . ";\n"
	    . 'drain_timeout = ' . ($opt{drain_timeout} // '0.0') . ";\n"
	    . 'accept_timeout = ' . sprintf('%.2f', ($opt{accept_timeout} // 10) * slow_factor()) . ";\n"
	    . qq(jsonrpc_server = { bind_address = "127.0.0.1:0"; $tls[0] };\n)
	    . qq(jsonrpc_client = { endpoint = "$scheme://localhost:) . $p->{hyper_port} . qq(/jsonrpc"; $tls[1] };\n)
	    . ($opt{more} // '') . "\n};\n" . ($opt{outer} // '');
	write_file("$p->{dir}/001.cfg", $p->{settings});
	$p->launch if $opt{start} // 1;
	return $p;
}

sub launch {
	my ($p) = @_;
	$p->{d} = start($p->{name}, [ @{ $p->{opt}{wrap} // [] }, $p->{opt}{program} // program('proxy'), 'run', 'public' ],
		env => { PROXY_SETTINGS => $p->{dir}, %{ $p->{opt}{env} // {} } }, timeout => 30);
	$p->{port} = $p->{d}->ready('port');
	$p->{rpc} = $p->{d}->ready('jsonrpc_port');
	return $p;
}

# From now on the test plays the proxy's hyper.
sub be_hyper {
	my ($p) = @_;
	$p->{hyper} = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => $p->{hyper_port} // 0, Listen => 64, ReuseAddr => 1) or die "listen: $!";
	$p->{hyper_port} = $p->{hyper}->sockport;
	return;
}

sub log_text { return $_[0]{d}->log_text }

# A's `_client` as its hyper adds it.
sub client {
	my ($name) = @_;
	$name //= 'hd-1';
	return { name => $name, entry => { name => $name, groups => ['health-departments'], channels => [ { type => 'grpc_client', settings => undef } ],
			services => [], certificates => [], settings => [], preferences => [], records => [ { secret => 1 } ], properties => undef } };
}

# Sends A's request; the answer comes by ->answer. Options: params (all of them), to, body (raw text).
sub ask {
	my ($p, %opt) = @_;
	my $params = $opt{params} // { to => $opt{to} // 'hd-2', channel => 'grpc_server', _client => client() };
	my $body = $opt{body} // json_text({ jsonrpc => '2.0', method => $opt{method} // 'requestConnection', params => $params, id => 'a1' });
	my $s = connect_to($p->{rpc});
	send_all($s, "POST /jsonrpc HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
		. length($body) . "\r\n\r\n$body");
	return bless { sock => $s }, 'ProxyTest::Ask';
}

# The next request of the proxy to its hyper, undef after the deadline.
sub told {
	my ($p, $seconds) = @_;
	my $s = $p->accept_hyper($seconds // 10) // return undef;
	my ($head, $body) = ProxyTest::read_http($s, 10);
	my $req = eval { json_value($body) } // return undef;
	return bless { sock => $s, req => $req, method => $req->{method}, params => $req->{params}, id => $req->{id}, body => $body }, 'ProxyTest::Told';
}

sub accept_hyper {
	my ($p, $seconds) = @_;
	return undef if !HyperTest::readable_until($p->{hyper}, time + $seconds * slow_factor());
	my $s = $p->{hyper}->accept // return undef;
	if ($p->{opt}{tls}) {
		require IO::Socket::SSL;
		my $c = certs();
		IO::Socket::SSL->start_SSL($s, SSL_server => 1, SSL_cert_file => "$c/public-proxy-1.ga.crt", SSL_key_file => "$c/public-proxy-1.ga.key",
			SSL_ca_file => "$c/root.crt", SSL_verify_mode => IO::Socket::SSL::SSL_VERIFY_PEER() | IO::Socket::SSL::SSL_VERIFY_FAIL_IF_NO_PEER_CERT())
		    or return undef;
	}
	return $s;
}

# Brokers to the end: (raw token, session, A's answer).
sub broker {
	my ($p, %opt) = @_;
	my $ask = $p->ask(%opt);
	my $told = $p->told // die "nothing was told to B:\n" . $p->{d}->log_tail;
	$told->answer;
	my $r = $ask->answer;
	die 'no token: ' . json_text($r) . "\n" . $p->{d}->log_tail if !$r->{result};
	return (decode_base64($r->{result}{token}), $r->{result}{session}, $r);
}

# A party's connection; sends all of the text (a token and what is glued to it).
sub come {
	my ($p, $text) = @_;
	my $s = connect_to($p->{port});
	send_all($s, $text) if length $text;
	return $s;
}

# Two joined sockets, first and second, and the session. `workers` => [ first's, second's ] slot numbers.
sub pair {
	my ($p, %opt) = @_;
	my ($token, $session) = $p->broker;
	my @w = @{ $opt{workers} // [] };
	my $first = $p->at($w[0], sub { $p->come($token) });
	$p->wait_parked($session);
	my $second = $p->at($w[1], sub { $p->come($token) });
	$p->wait_pair($session);
	return ($first, $second, $session);
}

sub wait_parked { my ($p, $session) = @_; return $p->{d}->wait_log(qr/proxy\[\d+\] info parked session=$session .*worker=(\d+)/) // die "not parked:\n" . $p->{d}->log_tail }
# (pair, worker, first worker)
sub wait_pair {
	my ($p, $session) = @_;
	my $line = $p->{d}->wait_log(qr/proxy\[\d+\] info pair session=$session (.*)/) // die "not paired:\n" . $p->{d}->log_tail;
	return $line =~ /pair=(\d+) worker=(\d+) first_worker=(\d+)/;
}
sub wait_ended {
	my ($p, $session) = @_;
	my $line = $p->{d}->wait_log(qr/proxy\[\d+\] info ended pair=\d+ session=$session (.*)/) // return undef;
	return { map { split /=/ } split / /, $line };
}
# Why a session ended without a pair.
sub unpaired { my ($p, $session, $seconds) = @_; return $p->{d}->wait_log(qr/proxy\[\d+\] info unpaired session=$session .*reason=(\w+)/, $seconds) }

# Pid of the process in a worker slot.
sub worker_pid {
	my ($p, $slot) = @_;
	my @pids = $p->log_text =~ /worker_ready worker=$slot pid=(\d+)/g;
	return $pids[-1];
}
sub worker_pids { my ($p) = @_; return map { $p->worker_pid($_) } 0 .. ($p->{opt}{workers} // 2) - 1 }

# Waits in the kernel, as a writer does whose reader does not read.
sub is_blocked { return read_file("/proc/$_[0]/stat") =~ /\) S / }
sub is_stopped { return read_file("/proc/$_[0]/stat") =~ /\) T / }

# It has no time any more when this returns.
sub stop_process { my ($pid) = @_; kill 'STOP', $pid; wait_until { is_stopped($pid) } or die "$pid does not stop"; return }

# A process of its own writes without pause, until it is blocked or the socket breaks. Its pid.
my @writers;
sub keep_writing {
	my ($sock) = @_;
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		$SIG{PIPE} = 'DEFAULT';
		my $data = 'w' x 65536;
		1 while syswrite $sock, $data;
		POSIX::_exit(0);
	}
	push @writers, $pid;
	return $pid;
}
sub stop_writers { kill 'KILL', @writers; waitpid $_, 0 for @writers; @writers = (); return }

# A verb of the program, as an operator of this proxy: (exit status, stdout, stderr)
sub verb { my ($p, @words) = @_; return run_program([ program('proxy'), @words ], env => { PROXY_SETTINGS => $p->{dir} }, timeout => 60) }

# How many connections with a token worker `slot` has told the master of.
sub arrived { my ($p, $slot) = @_; return scalar(() = $p->log_text =~ /proxy-worker-$slot\[\d+\] info arrived /g) }

# A party's connection, of which worker `slot`, which is to be the only one that runs, has told the master when this returns.
sub arrive {
	my ($p, $slot, $text) = @_;
	my $before = $p->arrived($slot);
	my $s = $p->come($text);
	my $worker = $p->worker_pid($slot);
	# the line is written before the message is sent: that is done when it sleeps again
	wait_until { $p->arrived($slot) > $before && is_blocked($worker) } or die "no ARRIVED:\n" . $p->{d}->log_tail;
	return $s;
}

# Runs the code while no worker but that of `slot` runs; undef: all run.
sub at {
	my ($p, $slot, $code) = @_;
	return $code->() if !defined $slot;
	my @others = map { $p->worker_pid($_) } grep { $_ != $slot } 0 .. ($p->{opt}{workers} // 2) - 1;
	kill 'STOP', @others;
	wait_until { !grep { !is_stopped($_) } @others } or die 'a worker does not stop';
	my $accepted = $p->arrived($slot);
	my $sock = $code->();
	wait_until { $p->arrived($slot) > $accepted } or die "worker $slot did not accept:\n" . $p->{d}->log_tail;
	kill 'CONT', @others;
	return $sock;
}

# Descriptors of the master and of each worker. Idle pipes of a worker's pool do not count: they are no leak.
sub count_fds {
	my ($p) = @_;
	return [ map { my $pid = $_; scalar grep { (readlink($_) // '') !~ /^pipe:/ } glob "/proc/$pid/fd/*" } $p->{d}->pid, $p->worker_pids ];
}
sub note_fds { my ($p) = @_; $p->settled; return $p->{fds} = $p->count_fds }
sub fds_are_back {
	my ($p, $what) = @_;
	my $now;
	my $ok = wait_until { $now = $p->count_fds; !grep { $now->[$_] > $p->{fds}[$_] } 0 .. $#$now };
	ok($ok, "$what: descriptors are back") or diag("were @{ $p->{fds} }, are @$now");
	return $ok;
}

# Waits until all that began has ended: tokens, pairs, connections of the test's own making.
sub settled {
	my ($p) = @_;
	wait_until {
		my $log = $p->log_text;
		my ($asked, $over) = (scalar(() = $log =~ / info asked /g), scalar(() = $log =~ / info (?:unpaired |ended pair=\d+ session=\w+ worker=)/g));
		my $last = $p->{count} // [];
		$p->{count} = $p->count_fds;
		"@$last" eq "@{ $p->{count} }" && $asked == $over;
	} 10;
	return;
}

# No line of any log shows this token, in any of its usual spellings.
sub token_is_secret {
	my ($p, $token, $what) = @_;
	require MIME::Base64;
	my ($b64, $hex) = (MIME::Base64::encode_base64($token, ''), unpack 'H*', $token);
	my $log = $p->log_text;
	return ok(index($log, $b64) < 0 && index(lc $log, $hex) < 0 && index($log, $token) < 0, "$what: the log does not show the token");
}

# Does each side get what the other writes?
sub joined {
	my ($a, $b, $what) = @_;
	send_all($a, 'ping');
	my $one = read_exactly($b, 4);
	send_all($b, 'pong!');
	my $two = read_exactly($a, 5);
	return is("$one $two", 'ping pong!', $what);
}

# (head, body) of one HTTP message with a Content-Length; works on TLS too, where select() may not see what is buffered.
sub read_http {
	my ($s, $seconds) = @_;
	my ($data, $end) = ('', time + $seconds * slow_factor());
	while (1) {
		if ($data =~ /^(.*?\r\n\r\n)(.*)$/s) {
			my ($head, $body) = ($1, $2);
			my $len = $head =~ /^Content-Length: *(\d+)/mi ? $1 : 0;
			return ($head, $body) if length $body >= $len;
		}
		my $pending = $s->can('pending') ? $s->pending : 0;
		last if !$pending && !HyperTest::readable_until($s, $end);
		last if !sysread $s, $data, 65536, length $data;
	}
	return ($data, '');
}

package ProxyTest::Ask;
use HyperTest;

# The decoded answer with its HTTP status, undef members when none came.
sub answer {
	my ($ask, $seconds) = @_;
	my ($head, $body) = ProxyTest::read_http($ask->{sock}, $seconds // 15);
	my $r = eval { json_value($body) } // {};
	$r->{http} = $head =~ m{^HTTP/1\.1 (\d+)} ? $1 : 0;
	return $r;
}

package ProxyTest::Told;
use HyperTest;

# { result => {} } unless told otherwise: { error => {...} }, or raw text.
sub answer {
	my ($t, $answer) = @_;
	$answer //= { result => {} };
	my $body = ref $answer ? json_text({ jsonrpc => '2.0', id => $t->{id}, %$answer }) : $answer;
	ProxyTest::send_all($t->{sock}, "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nConnection: close\r\nContent-Length: "
		. length($body) . "\r\n\r\n$body");
	close $t->{sock};
	return;
}
sub token { my ($t) = @_; return MIME::Base64::decode_base64($t->{params}{token}) }

1;

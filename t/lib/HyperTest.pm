# HyperTest.pm - what every test of programs needs: a folder, ports, certificates, daemons, deadlines, leak checks
#
# Always true: no process that a test started outlives it, nor any that such a process started (orphans become the
# test's own children); its folder is removed; its logs are shown only when it failed; a sanitizer's or a `bug` line in
# any log fails the test, and so does a program of ours that TERM does not end with status 0.
package HyperTest;
use strict;
use warnings;
use Exporter 'import';
use Fcntl qw(:flock);
use File::Path qw(make_path);
use File::Temp ();
use IO::Socket qw(SOL_SOCKET SO_LINGER);
use IO::Socket::INET ();
use IO::Socket::IP ();
use JSON::PP ();
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(tmp build source certs free_port write_file read_file start wait_until curl rpc json_text json_value
    connect_to read_exactly read_to_end fds_of children_of rss_of hyper_done slow_factor program run_program);
our @EXPORT_OK = qw(send_all reset_socket);

my ($tmp, @daemons);
my $main_pid = $$;

# prctl(PR_SET_CHILD_SUBREAPER): whoever loses its parent comes to us
my %prctl = (x86_64 => 157, aarch64 => 167, riscv64 => 167, i686 => 172);
if (my $number = $prctl{ (POSIX::uname())[4] }) { syscall $number, 36, 1, 0, 0, 0 }
my $json = JSON::PP->new->canonical->allow_nonref;

sub source { return $ENV{HYPER_SOURCE} // die "HYPER_SOURCE is not set: run by `make check` or ./dev check\n" }
sub build { return $ENV{HYPER_BUILD} // die "HYPER_BUILD is not set: run by `make check` or ./dev check\n" }
sub program { return build() . "/bin/$_[0]" }

# Sanitizers and valgrind are slow: deadlines grow with this.
sub slow_factor { return $ENV{T_SLOW} // 1 }

# The test's own folder; removed at its end, kept with T_KEEP=1.
sub tmp { $tmp //= File::Temp->newdir('hyper-t-' . 'X' x 6, TMPDIR => 1, CLEANUP => !$ENV{T_KEEP}); return "$tmp" }

sub write_file {
	my ($path, $text) = @_;
	(my $dir = $path) =~ s{/[^/]*$}{};
	make_path($dir);
	open my $fh, '>', $path or die "$path: $!";
	print $fh $text;
	close $fh or die "$path: $!";
	return $path;
}

sub read_file {
	my ($path) = @_;
	open my $fh, '<', $path or return '';
	local $/;
	return scalar(<$fh>) // '';
}

# One set of development certificates for each build folder; made by the first test that asks. Returns their
# folder; the change records with their fingerprints are in its folder `records`.
sub certs {
	my $dir = build() . '/t/certs';
	make_path(build() . '/t');
	open my $lock, '>', "$dir.lock" or die "$dir.lock: $!";
	flock($lock, LOCK_EX) or die "flock: $!";
	my $records = "$dir.records";
	if (!-e "$dir/hd-1.crt" || !-e "$records/002_certificates.json") {
		make_path($records);
		system("'" . source() . "/tools/make-certs' --force '$dir' '$records' >'$dir.log' 2>&1") == 0
		    or die "make-certs failed:\n" . read_file("$dir.log");
	}
	return $dir;
}

# A port that nobody listens on, on 127.0.0.1 and, where there is IPv6, on ::1. It stays the test's own to its end: a
# socket that is bound and never listens keeps the kernel from giving the port to anybody else's connection or listener,
# also while the test starts its program again; and our programs, which set SO_REUSEADDR as it does, can listen there.
my @kept_ports;
sub free_port {
	for (1 .. 200) {
		my $v4 = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Proto => 'tcp', ReuseAddr => 1)
		    or die "no port: $!";
		my $port = $v4->sockport;
		my $v6 = IO::Socket::IP->new(LocalHost => '::1', LocalPort => $port, Proto => 'tcp', ReuseAddr => 1, V6Only => 1);
		next if !$v6 && $!{EADDRINUSE};
		push @kept_ports, $v4, $v6;
		return $port;
	}
	die 'no free port';
}

# Calls the code until it returns true; that value, or undef when the deadline (seconds) is over.
sub wait_until(&;$) {
	my ($code, $seconds) = @_;
	my $end = time + ($seconds // 10) * slow_factor();
	while (1) {
		my $value = $code->();
		return $value if $value;
		return undef if time > $end;
		sleep 0.01;
	}
}

# In the child: environment and descriptors as asked, then the program.
sub exec_child {
	my ($cmd, $in, $out, $err, $env) = @_;
	open STDIN, '<', $in // '/dev/null';
	open STDOUT, '>>', $out or POSIX::_exit(126);
	open STDERR, '>>', $err or POSIX::_exit(126);
	$ENV{$_} = $env->{$_} for keys %{ $env // {} };
	exec @$cmd or POSIX::_exit(127);
}

# Starts a program; its output goes to a log. Options: env => {}, ready => 0 (do not wait), timeout => seconds.
# Dies with the log when it does not get ready. Returns an object, methods below.
sub start {
	my ($name, $cmd, %opt) = @_;
	my $log = tmp() . "/$name.log";
	my $log_start = -s $log // 0; # a program that is started again appends to its log
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		POSIX::setpgid(0, 0);
		exec_child($cmd, undef, $log, $log, $opt{env});
	}
	my $self = bless { name => $name, pid => $pid, log => $log, log_start => $log_start, running => 1 }, 'HyperTest::Daemon';
	my $bin = build() . '/bin/';
	$self->{is_ours} = grep { index($_, $bin) == 0 } @$cmd; # also behind a wrapper that execs it
	push @daemons, $self;
	if ($opt{ready} // 1) {
		my $ready = $self->wait_log(qr/ ready ?(.*)/, $opt{timeout} // 20);
		die "$name did not get ready:\n" . $self->log_text if !defined $ready || !$self->is_running;
		$self->{ready} = { map { /^([^=]+)=(.*)$/ ? ($1, $2) : () } split / /, $ready };
	}
	return $self;
}

# Runs a program to its end: (exit status, stdout, stderr).
sub run_program {
	my ($cmd, %opt) = @_;
	my ($out, $err) = map { File::Temp->new(DIR => tmp()) } 1, 2;
	my $pid = fork // die "fork: $!";
	exec_child($cmd, $opt{stdin}, "$out", "$err", $opt{env}) if !$pid;
	my $done = wait_until { waitpid($pid, WNOHANG) == $pid } $opt{timeout} // 60;
	my $status = $?;
	if (!$done) {
		kill 'KILL', $pid;
		waitpid $pid, 0;
		return (-1, read_file("$out"), read_file("$err") . "\n(killed: it took too long)\n");
	}
	return ($status & 127 ? 128 + ($status & 127) : $status >> 8, read_file("$out"), read_file("$err"));
}

# curl with a deadline: (HTTP status, body, curl's exit status).
sub curl {
	my (@args) = @_;
	my $body = File::Temp->new(DIR => tmp());
	my ($code, $out) = run_program(
		[ 'curl', '-sS', '--noproxy', '*', '--max-time', 30 * slow_factor(), '-o', "$body", '-w', '%{http_code}', @args ],
		timeout => 40);
	return ($out, read_file("$body"), $code);
}

# One JSON-RPC call: the decoded answer, plus its HTTP status under `http` and curl's exit status under `curl`.
# Options: cert => name of a certificate of certs(), id, body (raw text instead of a request).
sub rpc {
	my ($url, $method, $params, %opt) = @_;
	my @tls;
	if ($url =~ m{^https://([^:/]+):(\d+)}) {
		my $dir = certs();
		push @tls, '--cacert', "$dir/root.crt";
		push @tls, '--cert', "$dir/$opt{cert}.crt", '--key', "$dir/$opt{cert}.key" if $opt{cert};
		push @tls, '--resolve', "$1:$2:127.0.0.1" if $1 ne 'localhost';
	}
	my $file = File::Temp->new(DIR => tmp());
	print $file $opt{body} // json_text({ jsonrpc => '2.0', method => $method, params => $params // {}, id => $opt{id} // '1' });
	close $file;
	my ($status, $body, $code) = curl(@tls, '-H', 'Content-Type: application/json', '--data-binary', "\@$file", $url);
	my $answer = eval { $json->decode($body) };
	$answer = { undecoded => $body } if ref $answer ne 'HASH';
	$answer->{http} = $status;
	$answer->{curl} = $code;
	return $answer;
}

sub json_text { return $json->encode($_[0]) }
sub json_value { return $json->decode($_[0]) }

sub connect_to {
	my ($port, $host) = @_;
	my $sock = IO::Socket::IP->new(PeerHost => $host // '127.0.0.1', PeerPort => $port, Timeout => 10 * slow_factor())
	    or die "connect to port $port: $!";
	$sock->blocking(1);
	binmode $sock;
	return $sock;
}

# Ends it with a reset.
sub reset_socket { my ($s) = @_; setsockopt($s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) or die $!; close $s; return }

# Writes all; fewer bytes when the peer is gone.
sub send_all {
	my ($s, $data) = @_;
	my $off = 0;
	while ($off < length $data) {
		my $n = syswrite $s, $data, length($data) - $off, $off;
		return $off if !defined $n;
		$off += $n;
	}
	return $off;
}

# True when there is something to read before the end (a time).
sub readable_until {
	my ($sock, $end) = @_;
	while ((my $left = $end - time) > 0) {
		my $bits = '';
		vec($bits, fileno $sock, 1) = 1;
		return 1 if select($bits, undef, undef, $left) > 0;
	}
	return 0;
}

# Up to `len` bytes; fewer when the stream ended, failed or the deadline is over.
sub read_exactly {
	my ($sock, $len, $seconds) = @_;
	my ($data, $end) = ('', time + ($seconds // 10) * slow_factor());
	while (length $data < $len && readable_until($sock, $end)) {
		last if !sysread $sock, $data, $len - length $data, length $data;
	}
	return $data;
}

# (bytes, "eof" | "reset" | "timeout" | "error ...")
sub read_to_end {
	my ($sock, $seconds) = @_;
	my ($data, $end) = ('', time + ($seconds // 10) * slow_factor());
	while (readable_until($sock, $end)) {
		my $n = sysread $sock, $data, 65536, length $data;
		return ($data, $!{ECONNRESET} ? 'reset' : "error $!") if !defined $n;
		return ($data, 'eof') if $n == 0;
	}
	return ($data, 'timeout');
}

# Open descriptors of a process, -1 when it is gone or only waits for its parent.
sub fds_of { my ($pid) = @_; return -1 if read_file("/proc/$pid/stat") =~ /\) Z /; opendir my $d, "/proc/$pid/fd" or return -1; return scalar grep { !/^\./ } readdir $d }

# Pids of its living children.
sub children_of { my ($pid) = @_; return split ' ', read_file("/proc/$pid/task/$pid/children") }

# Resident kilobytes.
sub rss_of { my ($pid) = @_; return read_file("/proc/$pid/status") =~ /^VmRSS:\s+(\d+)/m ? $1 : 0 }

# Did it end by a signal that only a fault of its own sends?
sub crashed {
	my ($status) = @_;
	my $signal = ($status // 0) & 127;
	return grep { $signal == $_ } POSIX::SIGSEGV(), POSIX::SIGABRT(), POSIX::SIGBUS(), POSIX::SIGFPE(), POSIX::SIGILL(), POSIX::SIGPIPE();
}

# Call last: stops what still runs, looks through all logs, ends the plan.
sub hyper_done {
	for my $d (reverse @daemons) {
		my $runs = $d->is_running;
		my $status = $d->stop;
		is($status, 0, "$d->{name}: TERM ends it with status 0") if $runs && $d->{is_ours};
	}
	# orphans of programs that have ended may be about to, a browser's helpers for one
	wait_until { 1 while waitpid(-1, WNOHANG) > 0; !children_of($$) } 5;
	for my $d (@daemons) {
		my @bad = grep { /Sanitizer|runtime error:|\] bug / } split /\n/, $d->log_text;
		is("@bad", '', "$d->{name}: no sanitizer line and no bug line in its log");
		ok(!crashed($d->{status}), "$d->{name}: did not crash");
	}
	is_deeply([ children_of($$) ], [], 'no process is left');
	done_testing();
}

END {
	if ($$ == $main_pid) {
		my $status = $?;
		$_->kill_group for grep { $_->{running} } @daemons;
		if ($status || !Test::More->builder->is_passing) {
			diag("--- $_->{log}\n", $_->log_tail) for @daemons;
		}
		$? = $status;
	}
}

package HyperTest::Daemon;
use POSIX qw(:sys_wait_h);

sub pid { return $_[0]{pid} }
# Since this start of it.
sub log_text { return substr(HyperTest::read_file($_[0]{log}), $_[0]{log_start}) }
sub log_tail { my $t = $_[0]->log_text; return length $t > 8000 ? substr($t, -8000) : $t }
sub fds { return HyperTest::fds_of($_[0]{pid}) }
sub children { return HyperTest::children_of($_[0]{pid}) }
sub rss { return HyperTest::rss_of($_[0]{pid}) }
sub signal { my ($self, $sig) = @_; return kill $sig, $self->{pid} }

# Value of a key in the ready line.
sub ready { return $_[0]{ready}{ $_[1] } }

# Waits for a log line that matches: its first group, or all of the match; undef after the deadline or the program's end.
sub wait_log {
	my ($self, $re, $seconds) = @_;
	my $found;
	HyperTest::wait_until(sub {
		my $alive = $self->is_running;
		for my $line (split /\n/, $self->log_text) {
			if ($line =~ $re) {
				$found = $1 // $&;
				return 1;
			}
		}
		return !$alive;
	}, $seconds // 10);
	return $found;
}

# How many log lines match.
sub count_log { my ($self, $re) = @_; return scalar grep { /$re/ } split /\n/, $self->log_text }

sub is_running {
	my ($self) = @_;
	if ($self->{running} && waitpid($self->{pid}, WNOHANG) == $self->{pid}) {
		$self->{status} = $?;
		$self->{running} = 0;
	}
	return $self->{running};
}

# Exit status (128 + signal when it died of one), or undef when it still runs after the deadline.
sub wait_exit {
	my ($self, $seconds) = @_;
	HyperTest::wait_until(sub { !$self->is_running }, $seconds // 10) or return undef;
	return $self->{status} & 127 ? 128 + ($self->{status} & 127) : $self->{status} >> 8;
}

# TERM, then its exit status; KILL and undef when it does not end within the deadline.
sub stop {
	my ($self, $seconds) = @_;
	return $self->wait_exit(0) if !$self->is_running;
	kill 'TERM', $self->{pid};
	my $status = $self->wait_exit($seconds // 10);
	$self->kill_group if !defined $status;
	return $status;
}

# The program and all its children that stayed in its group.
sub kill_group {
	my ($self) = @_;
	kill 'KILL', -$self->{pid}, $self->{pid};
	waitpid $self->{pid}, 0 if $self->{running};
	$self->{running} = 0;
	$self->{status} //= 9;
	return;
}

1;

#!/usr/bin/perl
# Guards: a reload changes time-outs, keepalive, an operator's bytes a second, copying, sizes of ledgers and where the log goes in place: for pairs that live and for new ones, without another worker and without a byte or a pair lost.
use strict;
use warnings;
use Fcntl;
use HyperTest;
use IO::Socket::UNIX;
use POSIX ();
use ProxyTest;
use Socket qw(SOL_SOCKET IPPROTO_TCP SOCK_DGRAM);
use Test::More;
use Time::HiRes qw(time sleep); # lasts: silence is what is tested

my $socket = tmp() . '/admin.sock';
my ($file, $other) = (tmp() . '/one.log', tmp() . '/two.log');
my $p = proxy(workers => 2, more => 'max_pairs = 2; max_pipes = 2;', outer => qq(admin_socket = "$socket";\n));
my @workers = sort map { $p->worker_pid($_) } 0, 1;

sub verb { return $p->verb(@_) }

# Settings of `public` from now on, those of the start where not named; `outer` beside it. Returns what `reload` said.
sub change {
	my ($outer, %set) = @_;
	my $text = $p->{settings} =~ s/max_pairs = 2; max_pipes = 2;//r;
	%set = (max_pairs => 50, max_pipes => 20, %set);
	my $more = join '', map { "$_ = $set{$_}; " } sort keys %set;
	$text =~ s/^public = \{/public = { $more/m;
	write_file("$p->{dir}/001.cfg", $outer . $text);
	my ($code, $out, $err) = verb('reload');
	is("$code $err", '0 ', 'reload ' . join ' ', $outer =~ s/\s+$//r, map { "$_=$set{$_}" } sort keys %set);
	unlike($out, qr/needs a restart/, 'it applies at once');
	return $out;
}

# The value of a socket option at the worker's end of our connection: asked by a copy of that descriptor.
sub option {
	my ($sock, $level, $name) = @_;
	my $port = $sock->sockport;
	for my $pid (@workers) {
		my $pidfd = syscall 434, $pid + 0, 0;
		for my $fd (map { m{/(\d+)$} } grep { (readlink($_) // '') =~ /^socket:/ } glob "/proc/$pid/fd/*") {
			my $copy = syscall 438, $pidfd, $fd + 0, 0;
			next if $copy < 0;
			open my $fh, '+<&=', $copy or next;
			my $peer = getpeername $fh or next;
			next if length $peer != 16 || (Socket::unpack_sockaddr_in($peer))[0] != $port;
			my $value = unpack 'i', getsockopt $fh, $level, $name;
			POSIX::close($pidfd);
			return $value;
		}
		POSIX::close($pidfd);
	}
	return 'not found';
}

sub pipes_of_workers { return scalar map { grep { (readlink($_) // '') =~ m{^pipe:|/pipe|^/proc/.*fd} } glob "/proc/$_/fd/*" } @workers }


sub rate {
	my ($sock, $seconds) = @_;
	my ($since, $got) = (time, 0);
	while ((my $left = $since + $seconds - time) > 0) {
		HyperTest::readable_until($sock, $since + $seconds) or last;
		$got += sysread($sock, my $data, 262144) // 0;
	}
	return $got / (time - $since);
}

my ($a, $b, $session) = $p->pair;
my ($c, $d, $used) = $p->pair;
joined($a, $b, 'a pair of the start');

# Room for more than the start had
{
	my @more;
	like(change('', max_pairs => 50), qr/^changed: public\.max_pairs 2 -> 50$/m, 'more pairs');
	push @more, [ $p->pair ] for 1 .. 20;
	joined($_->[0], $_->[1], 'one of many') for @more;
	is((grep { $p->{d}->count_log(qr/ended .*session=$_->[2]/) } @more), 0, 'all live');
	close $_ for map { @$_[0, 1] } @more;
}

# Keepalive
{
	is(option($a, IPPROTO_TCP, 4), 15, 'TCP_KEEPIDLE before');
	change('', keepalive_idle => 33, keepalive_interval => 7, keepalive_count => 9, user_timeout => 44);
	ok((wait_until { option($a, IPPROTO_TCP, 4) eq 33 }), 'TCP_KEEPIDLE of a pair that lives');
	is(option($b, IPPROTO_TCP, 5), 7, 'TCP_KEEPINTVL');
	is(option($b, IPPROTO_TCP, 6), 9, 'TCP_KEEPCNT');
	my ($e, $f) = $p->pair;
	joined($e, $f, 'a new one');
	is(option($e, IPPROTO_TCP, 4), 33, 'of a new one, second party');
	is(option($f, IPPROTO_TCP, 5), 7, 'and first party');
	change('');
	ok((wait_until { option($e, IPPROTO_TCP, 4) eq 15 }), 'and back');
	close $_ for $e, $f;
}

# Bytes a second of an operator
{
	my $limit = 1_000_000;
	keep_writing($c);
	cmp_ok(rate($d, 0.5), '>', 4 * $limit, 'no limit: fast') or diag('a slow machine');
	change('', bytes_per_second_per_operator => $limit);
	rate($d, 1.5); # what was under way
	my $r = rate($d, 3);
	cmp_ok($r, '<', 1.3 * $limit, "a pair that lives meets the new limit: $r");
	cmp_ok($r, '>', 0.3 * $limit, 'and may use it');
	change('', bytes_per_second_per_operator => 3 * $limit);
	rate($d, 1.5);
	$r = rate($d, 3);
	cmp_ok($r, '<', 3.9 * $limit, "a higher one: $r");
	cmp_ok($r, '>', 1.1 * $limit, 'and may use it');
	change('');
	rate($d, 1.5);
	cmp_ok(rate($d, 1), '>', 4 * $limit, 'none again');
	stop_writers();
	close $_ for $c, $d;
}

# Copying instead of splicing
{
	change('', copy_mode => 'true');
	my ($e, $f, $copied) = $p->pair;
	joined($e, $f, 'copy mode');
	ok((wait_until { pipes_of_workers() == 0 } 30), 'copy mode: the pipes are closed after a while');
	my $writer = keep_writing($e);
	wait_until { ProxyTest::is_blocked($writer) } or die 'the writer does not wait';
	is(pipes_of_workers(), 0, 'copy mode: bytes that wait are in no pipe');
	change('');
	my ($g, $h) = $p->pair;
	my $writer2 = keep_writing($g);
	ok((wait_until { pipes_of_workers() > 0 }), 'spliced again');
	stop_writers();
	close $_ for $e, $f, $g, $h;
	change('', copy_small_messages => 'false');
	joined($a, $b, 'small messages are spliced');
	change('');
	joined($a, $b, 'and copied again');
}

# Time-outs
{
	my ($e, $f, $half) = $p->pair;
	shutdown $e, 1;
	is(read_exactly($f, 1), '', 'half closed') if HyperTest::readable_until($f, time + 20);
	change('', half_closed_timeout => '1.0');
	ok((wait_until { $p->{d}->count_log(qr/ ended .*session=$half .*reason=half_closed /) >= 1 } 20), 'half closed pairs end');
	my ($g, $h, $silent) = $p->pair;
	my ($i, $j, $busy) = $p->pair;
	my $limit = 3 * HyperTest::slow_factor();
	sleep 1; # lasts: it is silent already
	joined($a, $b, 'the pair of the start is not');
	change('', idle_timeout => sprintf '%.1f', $limit);
	my ($since, $ok) = (time, 1);
	while (time - $since < 1.5 * $limit) {
		send_all($i, 'x');
		$ok &&= read_exactly($j, 1) eq 'x';
		send_all($a, 'x');
		$ok &&= read_exactly($b, 1) eq 'x';
		sleep 0.1; # lasts: it is used for longer than the time limit
	}
	ok($ok, 'a pair that is used moves bytes');
	ok((wait_until { $p->{d}->count_log(qr/ ended .*session=$silent .*reason=idle /) >= 1 } 20), 'silent pairs end');
	change('');
	($g, $h, $silent) = $p->pair;
	sleep 3; # lasts: the silence that must not matter
	joined($g, $h, 'no time-out: a silent pair stays');
	joined($i, $j, 'another one');
	close $_ for $e, $f, $g, $h, $i, $j;
}

# Where lines go
{
	my $lines = sub { my ($path) = @_; return -e $path ? read_file($path) : '' };
	change(qq(log = "file:$file";\n));
	my ($token, $first) = $p->broker;
	my $x = $p->come($token);
	my $y = $p->come($token);
	joined($y, $x, 'a file');
	close $_ for $x, $y;
	ok((wait_until { my $t = $lines->($file); $t =~ / proxy-worker-\d+\[\d+\] info ended .*session=$first/ && $t =~ / proxy\[\d+\] info ended .*session=$first/ }), 'a file: both have lines in it');
	is($p->{d}->count_log(qr/session=$first/), 0, 'and none where they went before');
	change(qq(log = "file:$other"; log_format = "json";\n));
	my $size = -s $file;
	($token, my $second) = $p->broker;
	$x = $p->come($token);
	$y = $p->come($token);
	joined($y, $x, 'another file');
	close $_ for $x, $y;
	ok((wait_until { my $t = $lines->($other); $t =~ /"program":"proxy-worker-\d".*"event":"ended".*$second/ && $t =~ /"program":"proxy".*"event":"ended".*$second/ }), 'another file: both have lines in it, as JSON');
	my $path = tmp() . '/syslog';
	my $sys = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $path) or die "socket: $!";
	# a queue of ten is full at once
	my $reader = fork // die "fork: $!";
	if (!$reader) {
		open my $out, '>', "$path.got" or POSIX::_exit(1);
		$out->autoflush(1);
		while (defined recv $sys, my $line, 8192, 0) { print $out "$line\n" }
		POSIX::_exit(0);
	}
	change(qq(log = "syslog:$path";\n));
	# A reader that gets no CPU in time leaves the queue full, and a line that finds no room is dropped: so there are tries.
	my $told;
	for (1 .. 10) {
		($token, my $third) = $p->broker;
		$x = $p->come($token);
		$y = $p->come($token);
		joined($y, $x, 'syslog');
		close $_ for $x, $y;
		$told = wait_until { my $t = $lines->("$path.got"); $t =~ /^<\d+>.*proxy-worker-\d\[\d+\].*ended.*$third/m && $t =~ /^<\d+>.*proxy\[\d+\].*ended.*$third/m } 1;
		last if $told;
	}
	ok($told, 'syslog: datagrams of master and worker') or diag($lines->("$path.got"));
	kill 'KILL', $reader;
	waitpid $reader, 0;
	# one that cannot be opened
	write_file("$p->{dir}/001.cfg", qq(log = "file:/nonexistent/x.log";\n) . $p->{settings});
	my ($code, undef, $err) = verb('reload');
	is($code, 78, 'a log that cannot be opened: exit status 78');
	like($err, qr/log: .*\/nonexistent\/x\.log/, 'it is named');
	change('');
	my ($e, $f, $fourth) = $p->pair;
	joined($e, $f, 'standard error again');
	close $_ for $e, $f;
	isnt($p->wait_ended($fourth), undef, 'its lines are there');
	unlike($lines->($file) . $lines->($other), qr/$fourth/, 'and in no file');
}

joined($a, $b, 'the pair of the start lives');
is_deeply([ sort map { $p->worker_pid($_) } 0, 1 ], \@workers, 'the workers are those of the start');
close $_ for $a, $b;
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();

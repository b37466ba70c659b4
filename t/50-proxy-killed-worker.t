#!/usr/bin/perl
# Guards: a worker that is killed, crashes or stands still costs no byte: its pairs go on at another one, half-closed ones too. Copying shows the loss.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use HyperTest;
use IO::Socket qw(SHUT_WR);
use POSIX qw(EAGAIN);
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $size = $ENV{HYPER_LONG} ? 32 << 20 : 4 << 20;
open my $random, '<:raw', '/dev/urandom' or die $!;
sysread $random, my $noise, 1 << 16;

# What one side sends: different for each, as long as asked for.
sub stream { my ($key, $len) = @_; my $s = $key . $noise; return substr($s x (1 + int($len / length $s)), 0, $len) }

# One end of a pair: what it still sends, what has come, and how it ended.
sub end_of { my ($sock, $out) = @_; $sock->blocking(0); return { sock => $sock, out => $out, sent => 0, in => Digest::SHA->new(256), got => 0, state => 'open' } }

# Moves bytes until each end has seen the end of its peer's stream; calls $between now and then.
sub pump {
	my ($ends, $between) = @_;
	my ($until, $next) = (time + 60 * slow_factor(), time + 0.05);
	my $lives = sub { my ($e) = @_; return $e->{state} eq 'open' || ($e->{state} eq 'eof' && defined $e->{out}) };
	while (grep { $lives->($_) } @$ends) {
		return if time > $until;
		my ($r, $w) = ('', '');
		for my $e (grep { $lives->($_) } @$ends) {
			vec($r, fileno $e->{sock}, 1) = 1 if $e->{state} eq 'open';
			vec($w, fileno $e->{sock}, 1) = 1 if defined $e->{out};
		}
		select $r, $w, undef, 0.02;
		for my $e (grep { $lives->($_) } @$ends) {
			my $fd = fileno $e->{sock};
			send_some($e) if defined $e->{out} && vec($w, $fd, 1);
			read_some($e) if $e->{state} eq 'open' && vec($r, $fd, 1);
		}
		if ($between && time > $next) { $between->(); $next = time + 0.05 }
	}
	return;
}

sub send_some {
	my ($e) = @_;
	my $n = syswrite $e->{sock}, $e->{out}, 65536, $e->{sent};
	if (!defined $n) { $e->{state} = 'reset' if $! != EAGAIN; return }
	$e->{sent} += $n;
	return if $e->{sent} < length $e->{out};
	shutdown $e->{sock}, SHUT_WR;
	$e->{out} = undef;
	return;
}

sub read_some {
	my ($e) = @_;
	my $n = sysread $e->{sock}, my $data, 65536;
	if (!defined $n) { $e->{state} = 'reset' if $! != EAGAIN; return }
	$e->{state} = 'eof' if $n == 0;
	$e->{in}->add($data);
	$e->{got} += $n;
	return;
}

# A signal that the test sends is no crash for a sanitizer to report.
my %env = (ASAN_OPTIONS => join ':', 'handle_segv=0', $ENV{ASAN_OPTIONS} // ());
my $p = proxy(workers => 2, token_timeout => 20, env => \%env);
close $_ for $p->pair;
$p->note_fds;

sub kill_worker {
	my ($slot, $signal) = @_;
	my $old = $p->worker_pid($slot);
	kill $signal, $old;
	return $old;
}
sub all_serve {
	my ($old) = @_;
	return wait_until { !grep { my $pid = $p->worker_pid($_); $pid == ($old->{$_} // 0) || fds_of($pid) < 0 } 0, 1 } 60;
}

# Sends until nothing moves any more: socket, pipe and the other socket are full. How many bytes that was.
sub fill {
	my ($sock, $out) = @_;
	my $n = 0;
	$sock->blocking(0);
	for (1 .. 20) {
		while ($n < length $out and my $k = syswrite $sock, $out, 65536, $n) { $n += $k }
		select undef, undef, undef, 0.02;
	}
	return $n;
}

# Two kills in a row, a slow reader: whatever is in a pipe at that moment is delivered.
sub quiet_kill {
	my ($signal, $what) = @_;
	my ($a, $b, $session) = $p->pair(workers => [ 0, 1 ]);
	my ($key, $n) = ("quiet $what ", 0);
	my $out = stream($key, 16 << 20);
	$n = fill($a, $out);
	my $old = kill_worker(1, $signal);
	ok(wait_until(sub { $p->log_text =~ /info resume pair=\d+ session=$session/ }, 30), "$what: the pair goes on at another worker");
	my $e = end_of($b, undef);
	shutdown $a, SHUT_WR;
	wait_until { read_some($e); $e->{state} ne 'open' } 30;
	is($e->{state}, 'eof', "$what: the stream ends as it did");
	is($e->{got}, $n, "$what: each byte came");
	is($e->{in}->hexdigest, sha256_hex(substr $out, 0, $n), "$what: and is right");
	$b->blocking(1);
	$a->blocking(1);
	send_all($b, 'and back');
	is(read_exactly($a, 8), 'and back', "$what: half-closed, the other direction lives");
	close $b;
	is((read_to_end($a, 10))[1], 'eof', "$what: to its end");
	close $a;
	is(($p->wait_ended($session) // {})->{reason}, 'closed', "$what: which is a clean one");
	all_serve({ 1 => $old }) or die 'not replaced';
	return;
}
quiet_kill('KILL', 'killed');
quiet_kill('SEGV', 'crashed');

# Both ways at once, half-closed ones among them, a kill every 50 ms
{
	my (@ends, @sessions, %want, $kills);
	for my $i (0 .. 5) {
		my ($a, $b, $session) = $p->pair;
		push @sessions, $session;
		# the first two send one way only: their other direction ends at once
		my ($out_a, $out_b) = (stream("a $i ", $size), $i < 2 ? '' : stream("b $i ", $size));
		push @ends, end_of($a, $out_a), end_of($b, $out_b);
		if ($i < 2) { shutdown $b, SHUT_WR; $ends[-1]{out} = undef }
		@want{ 2 * $i, 2 * $i + 1 } = (sha256_hex($out_b), sha256_hex($out_a));
	}
	pump(\@ends, sub {
		my @alive = grep { fds_of($p->worker_pid($_)) > 0 } 0, 1;
		return if @alive < 2 || ++$kills > 20;
		kill_worker($kills % 2, qw(KILL SEGV)[ $kills % 4 > 1 ]);
	});
	cmp_ok($kills // 0, '>', 0, 'workers were killed in the middle (' . ($kills // 0) . ')');
	is(join(' ', map { $_->{state} } @ends), join(' ', ('eof') x @ends), 'each stream has a clean end');
	is($ends[$_]{in}->hexdigest, $want{$_}, "stream $_: each byte, in order") for 0 .. $#ends;
	close $_->{sock} for @ends;
	is(($p->wait_ended($_) // {})->{reason}, 'closed', 'and so says the log') for @sessions;
	all_serve({}) or die 'not replaced';
}

# One that stands still is found by its heartbeat, killed, and its pair goes on
{
	my ($a, $b, $session) = $p->pair(workers => [ 0, 1 ]);
	send_all($a, 'before');
	is(read_exactly($b, 6), 'before', 'a pair lives at worker 1');
	my $old = kill_worker(1, 'STOP');
	send_all($a, 'meanwhile');
	is(read_exactly($b, 9, 20), 'meanwhile', 'its worker stands still: what was sent meanwhile arrives');
	joined($a, $b, 'and it goes on');
	close $_ for $a, $b;
	is(($p->wait_ended($session) // {})->{reason}, 'closed', 'to its own end');
	all_serve({ 1 => $old }) or die 'not replaced';
}

# A reset that nobody could pass on any more is passed on
{
	my ($a, $b, $session) = $p->pair(workers => [ 0, 1 ]);
	my @w = $p->worker_pids;
	kill 'STOP', @w;
	reset_socket($a);
	kill 'KILL', @w;
	is((read_to_end($b, 20))[1], 'reset', 'a reset while no worker lived is a reset');
	close $b;
	is(($p->wait_ended($session) // {})->{reason}, 'reset', 'and so says the log');
	all_serve({ 0 => $w[0], 1 => $w[1] }) or die 'not replaced';
}

$p->settled;
$p->fds_are_back('all deaths');
is($p->{d}->count_log(qr/proxy\[\d+\] info ended pair=/), $p->{d}->count_log(qr/proxy\[\d+\] info pair session=/), 'one end for each pair');
is($p->{d}->count_log(qr/ no_pipe /), 0, 'no byte was ever copied');
is($p->{d}->stop, 0, 'it stops cleanly');

# Where bytes are copied they die with the worker: nobody takes what is left for the whole
$p = proxy(workers => 2, more => 'copy_mode = true;');
my ($a, $b, $session) = $p->pair(workers => [ 0, 1 ]);
my ($out, $n) = (stream('copied ', 16 << 20), 0);
$n = fill($a, $out);
kill_worker(1, 'KILL');
my ($got, $how) = read_to_end($b, 20);
is($how, 'reset', 'copy mode: reset');
cmp_ok(length $got, '<', $n, 'copy mode: bytes are lost, so this test can fail');
is(($p->wait_ended($session) // {})->{reason}, 'worker_lost', 'copy mode: worker_lost');
close $_ for $a, $b;
is($p->{d}->stop, 0, 'it stops cleanly, too');
hyper_done();

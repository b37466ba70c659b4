#!/usr/bin/perl
# Guards: a peer whose network is gone is noticed within user_timeout (keepalive's time where nothing is on its way to it), the pair ends with the reason vanished, and its other side is reset.
use strict;
use warnings;
use HyperTest;
use IO::Select ();
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

if (!$ENV{HYPER_OWN_NET}) {
	plan skip_all => 'needs root for network namespaces of its own' if $> != 0 || system('unshare --net ip link add va type veth peer name vb 2>/dev/null') != 0;
	$ENV{HYPER_OWN_NET} = 1;
	exec 'unshare', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', $^X, (map { "-I$_" } @INC), $0 or die "exec: $!";
}

# The peer lives in a second namespace, behind a cable. It does as it is told, a line each: dial PORT HEX, send N, fill, cut.
my $peer = <<'PEER';
use IO::Socket::INET; $| = 1; my @s; print "there\n";
while (<STDIN>) {
	if (/^dial (\d+) (\w+)/) {
		push @s, IO::Socket::INET->new(PeerAddr => '10.77.0.1', PeerPort => $1, Timeout => 20) or die "dial: $!"; syswrite $s[-1], pack 'H*', $2;
	} elsif (/^send (\d+)/) { syswrite $s[-1], 'x' x $1
	} elsif (/^read (\d+)/) { my $n = $1; while ($n > 0) { my $r = sysread $s[-1], my $d, $n; die 'end' if !$r; $n -= $r }
	} elsif (/^cut/) { system('ip link set vb down') == 0 or die 'cut' }
	elsif (/^join/) { system('ip link set lo up; ip link set vb up; ip addr add 10.77.0.2/30 dev vb') }
	print "done\n";
}
PEER

my ($to, $from, $pid);
sub say_peer {
	my ($what) = @_;
	print {$to} "$what\n";
	my $line = HyperTest::readable_until($from, time + 30 * slow_factor()) ? <$from> : '';
	return $line eq "done\n" || BAIL_OUT("the peer did not $what");
}
sub cable {
	if ($pid) { close $to; waitpid $pid, 0 }
	pipe(my $r1, my $w1) or die; pipe(my $r2, my $w2) or die;
	$pid = fork // die "fork: $!";
	if (!$pid) {
		open STDIN, '<&', $r1; open STDOUT, '>&', $w2; close $_ for $w1, $r2;
		exec 'unshare', '--net', $^X, '-e', $peer or die "exec: $!";
	}
	close $_ for $r1, $w2;
	($to, $from) = ($w1, $r2);
	$to->autoflush(1);
	HyperTest::readable_until($from, time + 30 * slow_factor()) && <$from> eq "there\n" or BAIL_OUT('no peer');
	system('ip link del va 2>/dev/null');
	system("ip link add va type veth peer name vb netns $pid && ip addr add 10.77.0.1/30 dev va && ip link set va up") == 0 or BAIL_OUT('no cable');
	say_peer('join');
	return;
}

my $timeout = 1 * slow_factor();
my ($p, $here, $session);
# A pair of the peer and somebody here, in this order or the other.
sub meet {
	my ($is_first, $more) = @_;
	cable();
	$p = proxy(workers => 1, endpoint => '0.0.0.0:0', more => "user_timeout = $timeout; keepalive_idle = 1.0; keepalive_interval = 1.0; keepalive_count = 3; " . ($more // ''));
	(my $token, $session) = $p->broker;
	$here = $p->come($token) if !$is_first;
	$p->wait_parked($session) if !$is_first;
	say_peer("dial $p->{port} " . unpack 'H*', $token);
	$p->wait_parked($session);
	$here = $p->come($token) if $is_first;
	$p->wait_pair($session);
	send_all($here, 'hello');
	say_peer('read 5');
	say_peer('send 5');
	is(length read_exactly($here, 5), 5, 'they talk');
	return;
}
sub is_noticed {
	my ($what, $most) = @_;
	my $began = time;
	my $end = $p->{d}->wait_log(qr/proxy\[\d+\] info ended pair=\d+ session=$session (.*)/, $most + 10) // '';
	my $took = time - $began;
	like($end, qr/ reason=vanished /, "$what: it ends as vanished") or diag($p->{d}->log_tail);
	cmp_ok($took, '<', $most + 3 * slow_factor(), "$what: in time");
	is((read_to_end($here, 5))[1], 'reset', "$what: the other side is reset");
	is($p->{d}->count_log(qr/proxy-worker-0\[\d+\] info ended .*session=$session reason=vanished/), 1, "$what: the worker says the same");
	is($p->{d}->stop, 0, "$what: it stops cleanly");
	return $took;
}

for my $is_first (0, 1) {
	my $who = $is_first ? 'the first party' : 'the second party';
	meet($is_first);
	say_peer('cut');
	send_all($here, 'x' x 1000);
	my $took = is_noticed("$who vanished with bytes on their way", 1.5 * $timeout);
	cmp_ok($took, '>', 0.9 * $timeout, "$who: not before user_timeout");
}

# A writer that goes on writing a little does not hide it
meet(0);
say_peer('cut');
my $began = time;
my $n = 0;
while (!$p->{d}->count_log(qr/ ended pair=/) && time - $began < 10 * $timeout) { send_all($here, 'x'); $n++; select undef, undef, undef, 0.1 } # lasts: the writer's pace
cmp_ok($n, '>', 10, 'a writer that goes on');
is_noticed('vanished while more is written', 1);

# Nothing is on its way: keepalive
meet(0);
say_peer('cut');
is_noticed('vanished from a silent pair', 10);

# It had its window shut before
meet(0);
$here->blocking(0);
my ($since, $filled) = (time, 0);
while (time - $since < 0.5) { my $w = syswrite $here, 'f' x 65536; ($since, $filled) = (time, $filled + $w) if $w; select undef, undef, undef, 0.01 if !$w } # lasts: the stall is what is waited for
$here->blocking(1);
cmp_ok($filled, '>', 65536, 'its window is shut');
select undef, undef, undef, 1.5 * $timeout; # lasts: longer than user_timeout
is($p->{d}->count_log(qr/ ended pair=/), 0, 'which is no reason to end it');
say_peer('cut');
is_noticed('vanished with its window shut', 30 * slow_factor());

close $to;
waitpid $pid, 0;
hyper_done();

#!/usr/bin/perl
# Guards: a parked peer that goes frees its record at once, one that only finished sending waits on; a full table says so and when to come back.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $p = proxy(workers => 1, token_timeout => 5, more => 'table_slots = 4;');
close $_ for $p->pair;
$p->note_fds;

# Going away
for my $how ('reset', 'closed') {
	my ($token, $session) = $p->broker;
	my $b = $p->come($token);
	$p->wait_parked($session);
	$how eq 'reset' ? reset_socket($b) : close $b;
	is($p->unpaired($session), 'peer_gone', "$how while parked: the session ends");
	isnt((read_to_end($p->come($token)))[1], 'timeout', "$how: its token is unknown at once");
}
# ... after bytes: a reset takes them with it, and must be seen in spite of them
my ($token, $session) = $p->broker;
my $b = $p->come($token . 'early');
$p->wait_parked($session);
reset_socket($b);
is($p->unpaired($session), 'peer_gone', 'reset after early payload: the session ends');

# ... before B's side answered: A hears of it
my $ask = $p->ask;
my $told = $p->told;
$b = $p->come($told->token);
$p->wait_parked($told->{id});
close $b;
my $r = $ask->answer;
is($r->{error}{data}{reason}, 'peer_gone', 'gone before the answer: A is told') or diag(json_text($r));
like($r->{error}{message}, qr/hd-2/, 'with the name');
$told->answer;

# Only finished sending
($token, $session) = $p->broker;
$b = $p->come($token . 'all I have to say');
shutdown $b, 1;
$p->wait_parked($session);
my $a = $p->come($token);
$p->wait_pair($session);
is((read_to_end($a))[0], 'all I have to say', 'a half-closed peer with payload stays parked, and all of it arrives');

# as does the answer to it
my ($a2, $b2, $s2) = $p->pair;
send_all($b2, 'question');
shutdown $b2, 1;
is((read_to_end($a2))[0], 'question', 'half-close passes on');
send_all($a2, 'answer');
close $a2;
is((read_to_end($b2))[0], 'answer', 'and the other direction lives');
close $_ for $a, $b, $b2;
$p->settled;

# A full table
my @asks = map { $p->ask } 1 .. 4;
my @tolds = map { $p->told } 1 .. 4;
my $fifth = $p->ask->answer;
is($fifth->{error}{code}, -32001, 'table full: -32001') or diag(json_text($fifth));
is($fifth->{error}{data}{reason}, 'busy', 'reason busy');
my $retry = $fifth->{error}{data}{retry_after_ms};
ok($retry > 0 && $retry <= 5000 * slow_factor(), 'with a time to come back') or diag($retry);
$_->answer for @tolds;
is(scalar(grep { $_->answer->{result} } @asks), 4, 'those before it have their tokens');
my @b = map { $p->come($tolds[$_]->token) } 0 .. 3;
$p->wait_parked($_->{id}) for @tolds;
$a = $p->come($tolds[0]->token);
$p->wait_pair($tolds[0]{id});
my ($again) = $p->broker;
is(length $again, 32, 'room again after a pair');
is($p->unpaired($_->{id}, 10), 'expired', 'the others expire') for @tolds[ 1 .. 3 ];
is(length(($p->broker)[0]), 32, 'and make room') for 1 .. 3;

close $_ for $a, @b;
$p->settled;

# No descriptor left: who comes is refused, the master lives, and takes the next one when there is room
SKIP: {
	my $pid = $p->{d}->pid;
	my %open = map { m{(\d+)$} ? ($1, 1) : () } glob "/proc/$pid/fd/*";
	my $lowest = (grep { !$open{$_} } 0 .. 1000)[0];
	($token, $session) = $p->broker;
	my ($old) = read_file("/proc/$pid/limits") =~ /^Max open files +(\d+)/m;
	system('prlimit', "--pid=$pid", "--nofile=$lowest:") == 0 or skip('prlimit is not permitted', 4);
	$b = $p->come($token);
	isnt((read_to_end($b))[1], 'timeout', 'no descriptor left: the connection is closed');
	isnt($p->{d}->wait_log(qr/proxy\[\d+\] info refused conn=\d+ worker=0 reason=busy/), undef, 'with its reason');
	system('prlimit', "--pid=$pid", "--nofile=$old:") == 0 or die 'prlimit';
	$b = $p->come($token);
	$p->wait_parked($session);
	$a = $p->come($token);
	$p->wait_pair($session);
	joined($a, $b, 'room again: the same token still works');
	close $_ for $a, $b;
	$p->settled;
}
$p->fds_are_back('all that was parked');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();

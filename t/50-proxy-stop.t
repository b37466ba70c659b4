#!/usr/bin/perl
# Guards: a stop ends everything within its deadline and answers who waits; a start that can not work says why and exits.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

# TERM with all that can be under way
my $p = proxy(workers => 2);
my ($a, $b, $session) = $p->pair;
my ($token, $waiting) = $p->broker;
my $parked = $p->come($token);
$p->wait_parked($waiting);
my $ask = $p->ask;
my $told = $p->told;
my @workers = $p->worker_pids;
$p->{d}->signal('HUP');
isnt($p->{d}->wait_log(qr/ info reloaded changed=0 /), undef, 'HUP reloads');
$p->{d}->signal('USR1');
isnt($p->{d}->wait_log(qr/ info reopened log=stderr/), undef, 'USR1 likewise');
joined($a, $b, 'neither costs a pair');

my $began = time;
$p->{d}->signal('TERM');
my $r = $ask->answer;
is($r->{error}{code}, -32004, 'who waits for an answer hears of the stop') or diag(json_text($r));
is($r->{error}{data}{reason}, 'stopped', 'reason stopped');
is($p->{d}->wait_exit(10), 0, 'TERM: exit status 0');
ok(time - $began < 3 * slow_factor(), 'within its deadline') or diag(time - $began);
isnt((read_to_end($_))[1], 'timeout', 'its sockets are closed') for $a, $b, $parked;
is($p->unpaired($waiting), 'stopped', 'the parked session has its end');
is($p->wait_ended($session)->{reason}, 'stopped', 'and so has the pair');
is_deeply([ grep { fds_of($_) >= 0 } @workers ], [], 'no worker is left');

# A worker that does not obey is killed
$p = proxy(workers => 2);
my $frozen = $p->worker_pid(1);
kill 'STOP', $frozen;
$p->{d}->signal('TERM');
is($p->{d}->wait_exit(10), 0, 'TERM with a frozen worker: exit status 0');
isnt($p->{d}->wait_log(qr/worker_killed worker=1 .*did not stop/), undef, 'it was killed');

# INT: at once
$p = proxy(workers => 1);
$p->{d}->signal('INT');
is($p->{d}->wait_exit(5), 0, 'INT: exit status 0');

# Starts that can not work
my $taken = proxy(workers => 1);
sub fails {
	my ($name, $status, $re, $prefix, %opt) = @_;
	my $q = proxy(start => 0, %opt);
	my ($code, $out, $err) = run_program([ @$prefix, program('proxy'), 'run', 'public' ], env => { PROXY_SETTINGS => $q->{dir} }, timeout => 20);
	is($code, $status, "$name: exit status $status") or diag($err);
	like($err, $re, "$name: the log says why");
	return;
}
fails('address in use', 69, qr/error start what="public\.internal_bind_address" err=".*\Q$taken->{port}\E.*"/, [], endpoint => "127.0.0.1:$taken->{port}");
fails('too few descriptors', 78, qr/error descriptors limit=500 needed=\d+ why="each worker: 32 own \+ 1024 unauthenticated .*public\.max_unauthenticated/,
	[ 'sh', '-c', 'ulimit -n 500; exec "$@"', 'sh' ]);
is($taken->{d}->stop, 0, 'the first one stops cleanly');
hyper_done();

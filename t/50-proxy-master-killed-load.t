#!/usr/bin/perl
# Guards: a master killed under load costs no pair: its workers let the listeners go at once and run every pair to its end, and a new master serves at the same address within a second.
use strict;
use warnings;
use ChaosTest;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $endpoint = '127.0.0.1:' . free_port();
my $t0 = time;
my $p = storm_proxy(endpoint => $endpoint, workers => 2);
my $start_ms = (time - $t0) * 1000; # what a start takes on this machine, as busy as it is
my $l = load($p, pairs => 100, churn => 4, meet => 3, rate => 200_000, seconds => 600);
my @old = $p->worker_pids;
is(scalar(grep { fds_of($_) > 0 } @old), 2, 'two workers, and 100 pairs under way');

$t0 = time;
$p->{d}->signal('KILL');
is($p->{d}->wait_exit, 128 + 9, 'the master is dead');
my $next = storm_proxy(endpoint => $endpoint, workers => 2, hyper => free_port());
my $ms = (time - $t0) * 1000;
is($next->{port}, $p->{port}, 'a new one listens at the same address');
my ($second, $starts) = (1000 * slow_factor(), 3 * $start_ms);
cmp_ok($ms, '<', $second > $starts ? $second : $starts, sprintf('%.0f ms after the kill', $ms));

my $l2 = load($next, pairs => 20, churn => 4, total => 200, rate => 200_000, seconds => 60);
is($l2->wait_exit(60), 0, 'it pairs, beside the pairs of the dead one');
my $fresh = sum_of($l2);
nothing_lost($fresh, 20, 'the new master');
is($fresh->{churn}{done}, 200, 'the new master: each short pair too');

ok($l->is_running, 'the load on the old workers goes on');
is(scalar(grep { fds_of($_) > 0 } @old), 2, 'and they live');
end_load($l);
my $sum = sum_of($l);
my $unmet = $sum->{churn}{unmet};
cmp_ok($unmet, '<=', 4, 'a token that was in use for nothing yet died with its master, no other');
$sum->{churn}{unmet} = 0;
nothing_lost($sum, 100, 'the pairs of the dead master');
ok(wait_until(sub { !grep { fds_of($_) >= 0 } @old }), 'after the last pair the old workers leave');
isnt($p->{d}->wait_log(qr/proxy-worker-\d\[\d+\] warn master_gone why=\S+ pairs=[1-9]/), undef, 'the log says that they had pairs');
is($next->{d}->stop, 0, 'the new master stops cleanly');
hyper_done();

#!/usr/bin/perl
# Guards: without descriptors, with a full channel, with a master or a worker that stands still, the proxy refuses or waits, does not spin, loses no pair, and recovers by itself.
use strict;
use warnings;
use ChaosTest;
use HyperTest;
use IO::Socket::UNIX ();
use ProxyTest;
use Test::More;
use Time::HiRes qw(sleep time); # lasts: see below

my $pause = 1.5 * slow_factor(); # a stopped worker is killed after 4 s
$pause = 2.5 if $pause > 2.5;

# Its limit becomes the lowest number that is free: nothing can be opened. Returns the old limit.
sub take_descriptors {
	my ($pid) = @_;
	my %open = map { m{(\d+)$} ? ($1, 1) : () } glob "/proc/$pid/fd/*";
	my $lowest = (grep { !$open{$_} } 0 .. 5000)[0];
	my ($old) = read_file("/proc/$pid/limits") =~ /^Max open files +(\d+)/m;
	return system('prlimit', "--pid=$pid", "--nofile=$lowest:") == 0 ? $old : undef;
}
sub give_descriptors { my ($pid, $old) = @_; system('prlimit', "--pid=$pid", "--nofile=$old:") == 0 or die 'prlimit'; return }

# For so long; CPU seconds that each process used per second.
sub for_a_while {
	my ($seconds, @pids) = @_;
	my @before = map { cpu_of($_) } @pids;
	my $t0 = time;
	sleep $seconds; # lasts: as long as the want does
	my $lasted = time - $t0;
	return map { (cpu_of($pids[$_]) - $before[$_]) / $lasted } 0 .. $#pids;
}


my $admin = tmp() . '/admin.sock';
my $p = storm_proxy(workers => 2, log_level => 'debug', outer => qq(admin_socket = "$admin";\n));
my ($master, @workers) = ($p->{d}->pid, $p->worker_pids);

# Under a load of long pairs and of short ones, one after the other. Afterwards new ones must meet again, at once.
sub during {
	my ($what, $code) = @_;
	my $l = load($p, pairs => 50, churn => 8, rate => 100_000, bytes => 5000, seconds => 300, meet => 30);
	my $check = $code->();
	my $met = sub { $p->{d}->count_log(qr/proxy\[\d+\] info pair session=/) };
	my $before = $met->();
	ok(wait_until(sub { $met->() >= $before + 100 }), "$what: afterwards new pairs are made");
	$l->signal('TERM');
	my $sum = sum_of($l);
	nothing_lost($sum, 50, $what);
	is($sum->{churn}{done}, $sum->{churn}{asked}, "$what: who came meanwhile has met, too");
	$check->($sum) if $check;
	return;
}

SKIP: {
	my $old = take_descriptors($workers[0]);
	skip 'prlimit is not permitted', 1 if !defined $old;
	give_descriptors($workers[0], $old);

	during('workers without descriptors', sub {
		my @old = map { take_descriptors($_) } @workers;
		my @cpu = for_a_while($pause, @workers);
		ok($cpu[$_] < 0.5, sprintf('workers without descriptors: worker %d does not spin (%.2f of a CPU)', $_, $cpu[$_])) for 0, 1;
		isnt($p->{d}->wait_log(qr/proxy-worker-\d\[\d+\] warn accept err=.*pause_ms=/), undef, 'workers without descriptors: the log says so');
		give_descriptors($workers[$_], $old[$_]) for 0, 1;
		return undef;
	});

	during('a master without descriptors', sub {
		my $before = $p->{d}->count_log(qr/ info refused conn=\d+ worker=\d+ reason=busy/);
		my $limit = take_descriptors($master);
		my $s = connect_to($p->{rpc}); # waits in the listener's queue
		my $asker = IO::Socket::UNIX->new(Peer => $admin) // die "$admin: $!"; # so does this one
		my ($cpu) = for_a_while($pause, $master);
		ok($cpu < 0.7, sprintf('a master without descriptors: it does not spin (%.2f of a CPU)', $cpu));
		cmp_ok($p->{d}->count_log(qr/ info refused conn=\d+ worker=\d+ reason=busy/), '>', $before, 'a master without descriptors: who would be parked is refused: busy');
		give_descriptors($master, $limit);
		ProxyTest::send_all($s, "POST /jsonrpc HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
		my ($head) = ProxyTest::read_http($s, 10);
		like($head, qr{^HTTP/1\.1 \d+}, 'a master without descriptors: the request that waited is answered afterwards');
		is((run_program([ program('proxy'), 'status' ], env => { PROXY_SETTINGS => $p->{dir} }))[0], 0, 'a master without descriptors: the admin socket answers afterwards');
		return sub { cmp_ok($_[0]{churn}{again}, '>', 0, 'a master without descriptors: the refused ones came again') };
	});
}

during('a master that stands still', sub {
	stop_process($master);
	my ($cpu0, $cpu1) = for_a_while($pause, @workers);
	ok($cpu0 < 0.7 && $cpu1 < 0.7, sprintf('a master that stands still: workers do not spin (%.2f, %.2f of a CPU)', $cpu0, $cpu1));
	kill 'CONT', $master;
	return sub { cmp_ok($_[0]{kept}{stall_ms}, '<', 1000 * $pause, 'a master that stands still: pairs went on meanwhile') };
});

during('a worker that stands still', sub {
	stop_process($workers[0]);
	my ($cpu) = for_a_while($pause, $master);
	ok($cpu < 0.7, sprintf('a worker that stands still: the master does not spin (%.2f of a CPU)', $cpu));
	kill 'CONT', $workers[0];
	return undef;
});

is(join(' ', $p->worker_pids), join(' ', @workers), 'no worker died of it');
is($p->{d}->stop, 0, 'it stops cleanly');

# The channel to the master is full, then the one to the worker
$p = storm_proxy(workers => 1, log_level => 'debug');
($master, my $worker) = ($p->{d}->pid, $p->worker_pid(0));
my $l = load($p, pairs => 400, rate => 50_000, seconds => 1, ahead => 1, meet => 60);
stop_process($master);
$l->signal('USR1');
my $arrived = sub { $p->{d}->count_log(qr/proxy-worker-0\[\d+\] info arrived /) };
ok(wait_until(sub { $arrived->() >= 256 }), '800 parties come while the master stands still');
my ($cpu) = for_a_while(0.5, $worker);
is($arrived->(), 256, 'of which the worker takes as many as may wait for an answer');
ok($cpu < 0.5, sprintf('and does not spin (%.2f of a CPU)', $cpu));
stop_process($worker);
kill 'CONT', $master;
($cpu) = for_a_while(1, $master);
ok($cpu < 0.5, sprintf('the master answers while the worker stands still, and does not spin (%.2f of a CPU)', $cpu));
my $met;
wait_until { $met = $p->{d}->count_log(qr/proxy\[\d+\] info (?:parked|pair) /); $met >= 200 } 2; # before it is killed
cmp_ok($met, '>=', 200, 'answers to many of them are under way');
kill 'CONT', $worker;
is($l->wait_exit(90), 0, 'then the load comes to its end');
nothing_lost(sum_of($l), 400, 'full channels');
is($p->worker_pid(0), $worker, 'by the same worker');
hyper_done();

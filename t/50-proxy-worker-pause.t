#!/usr/bin/perl
# Guards: a worker that cannot start is tried less and less often, the log, the status, the metrics and the page say so, the other one serves on, and once it is repaired a reload brings it back at once.
use strict;
use warnings;
use File::Copy qw(copy);
use HyperTest;
use IO::Socket::INET;
use ProxyTest;
use Test::More;

my $program = tmp() . '/own-proxy';
my $socket = tmp() . '/admin.sock';
my $real = program('proxy');
copy($real, $program) or die "copy: $!";
chmod 0755, $program;

my $p = proxy(workers => 2, program => $program, outer => qq(metrics = { bind_address = "localhost:0"; };\nadmin_socket = "$socket";\n));
my $metrics = $p->{d}->ready('metrics_port');

sub verb { return run_program([ $real, @_ ], env => { PROXY_SETTINGS => $p->{dir} }, timeout => 60) }
sub page { my ($path) = @_; return (curl("http://127.0.0.1:$metrics$path"))[1] }
sub metric { my ($name) = @_; return page('/metrics') =~ /^$name (\S+)/m ? $1 : "no $name" }
sub worker { my ($i) = @_; my ($code, $out) = verb('status', '--json'); return $code == 0 ? json_value($out)->{workers}[$i] : {} }

my ($a0, $b0) = $p->pair(workers => [ 0, 0 ]);

# From now on the program cannot be executed: nobody may
chmod 0, $program;
kill 'KILL', $p->worker_pid(1);
isnt($p->{d}->wait_log(qr/warn worker_pause worker=1 crashes=2 retry_ms=\d+ serving=1 why="the program could not be executed.*" do="a reload/), undef,
	'the log says what it means and what to do');
isnt($p->{d}->wait_log(qr/warn worker_pause worker=1 crashes=5 /), undef, 'once more with each longer pause');
is($p->{d}->count_log(qr/worker_pause worker=1 crashes=$_ /), 1, "step $_: one line") for 2 .. 5;
is($p->{d}->count_log(qr/worker_pause worker=1 crashes=1 /), 0, 'the first one is none');
my $w = worker(1);
is($w->{state}, 'IDLE', 'status: it waits');
cmp_ok($w->{crashes}, '>=', 5, 'status: after so many');
is(worker(0)->{crashes}, 0, 'status: the other one did not crash');
my ($code, $out) = verb('status');
like($out, qr/^worker 1 .*IDLE .*crashed \d+ times in a row, next start in \d+\.\d s$/m, 'status says so in words');
is(metric('hyper_workers_crashing'), 1, 'the gauge');
joined($a0, $b0, 'the other worker serves on');
close $_ for $p->pair;

# Now nobody serves; still there is no hurry, and readiness says why
kill 'KILL', $p->worker_pid(0);
isnt($p->{d}->wait_log(qr/warn worker_pause worker=\d crashes=\d+ retry_ms=\d+ serving=0 /, 30), undef, 'none serves');
like(page('/readyz'), qr/no worker serves: they crash/, 'readyz says why');

# Repaired: a reload ends the pauses, and the pair of before goes on
chmod 0755, $program;
is((verb('reload'))[0], 0, 'a reload');
ok(wait_until(sub { metric('hyper_workers_serving') == 2 }, 60), 'both serve at once');
joined($a0, $b0, 'the pair of before goes on');
close $_ for $a0, $b0, $p->pair;
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();

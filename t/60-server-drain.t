#!/usr/bin/perl
# Guards: a message server that drains refuses new calls of applications and operators with words of its own, says so to monitoring, lets calls in flight come to their end, and can be taken back; a stop ends the draining.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use POSIX ();
use Test::More;

my $socket = tmp() . '/admin.sock';
my ($m, $echo) = mesh_with_service(qq(drain_timeout = 60;\nadmin_socket = "$socket";\nmetrics = { bind_address = "localhost:0"; };\n));
$m->start_all;
my $d = $m->{'hd-2'};

sub verb { return run_program([ program('hyper'), @_ ], env => { HYPER_SETTINGS => "$m->{dir}/hd-2" }, timeout => 60) }
sub page { my ($path) = @_; return curl('http://127.0.0.1:' . $d->ready('metrics_port') . $path) }
sub metric { my ($name) = @_; return (page('/metrics'))[1] =~ /^$name (\S+)/m ? $1 : "no $name" }

# What a call or a verb comes to that is made aside: waits for its end.
my $n = 0;
sub aside {
	my ($code) = @_;
	my $file = tmp() . '/aside.' . ++$n;
	my $child = fork // die "fork: $!";
	if (!$child) { write_file($file, json_text($code->())); POSIX::_exit(0) }
	return sub { waitpid $child, 0; return json_value(read_file($file)) };
}
sub aside_call {
	my ($method) = @_;
	my $before = $echo->count_log(qr/SERVING why="$method"/);
	my $end = aside(sub { $m->call("hd-2.$method", { ms => int 2000 * slow_factor() }) });
	ok(wait_until(sub { $echo->count_log(qr/SERVING why="$method"/) > $before }, 20), "a call of $method is with the service");
	return $end;
}
sub aside_verb {
	my (@words) = @_;
	my $before = $d->count_log(qr/ info drain_asked /);
	my $end = aside(sub { [ verb(@words) ] });
	ok(wait_until(sub { $d->count_log(qr/ info drain_asked /) > $before }, 20), "hyper @words waits");
	return $end;
}
sub refused {
	my ($r, $what) = @_;
	is($r->{error}{code}, -32004, "$what: refused") or diag(json_text($r));
	is($r->{error}{data}{reason}, 'draining', "$what: with its reason");
	like($r->{error}{message}, qr/hd-2 is draining: it takes no new calls/, "$what: in words");
	return;
}

ok($m->ping->{result}, 'a call before');
my $pairs = $m->{proxy}->count_log(qr/ pair session=/);

# Drained with a call in flight
my $slow = aside_call('slow');
my $drain = aside_verb('drain');
my $app = $m->call('hd-2._ping', {}, at => 'hd-2');
refused($app, 'of an application');
is($app->{error}{data}{retry_after_ms}, 1000, 'of an application: when to ask again');
refused($m->ping, 'of an operator that is connected');
my ($status, $text) = page('/readyz');
is($status, 503, 'readyz');
like($text, qr/draining: new calls are refused until `hyper undrain`/, 'readyz says why');
is((page('/healthz'))[0], 200, 'healthz: it is well');
is(metric('hyper_draining'), 1, 'the gauge');
my ($exit, $out, $err) = verb('status', '--json');
is(json_value($out)->{state}, 'draining', 'status');
is((verb('reload'))[0], 0, 'settings can be reloaded meanwhile');
ok($slow->()->{result}, 'the call in flight gets its answer');
is_deeply($drain->(), [ 0, "drained: 0 calls left\n", '' ], 'and then drain returns');
refused($m->ping, 'afterwards');
is($m->{'hd-1'}->stop, 0);
$m->start_one('hd-1');
my $r;
ok(wait_until(sub { $r = $m->ping; ($r->{error}{data}{reason} // '') eq 'draining' }, 30), 'an operator that would connect anew hears it, too') or diag(json_text($r));
is($r->{error}{code}, -32004, 'with the code');

# Taken back
($exit, $out, $err) = verb('undrain');
is("$exit $out$err", "0 serving again: 0 calls left\n", 'undrain');
is((page('/readyz'))[1], "serving\n", 'readyz');
is(metric('hyper_draining'), 0, 'the gauge is down');
ok(wait_until(sub { $m->ping->{result} }, 30), 'calls come through');
($exit, $out, $err) = verb('undrain');
is($exit, 1, 'undrain of one that serves');
like($err, qr/undrain: it is serving/, 'says so');

# A deadline, and others who wait
my $never = aside_call('never');
($exit, $out, $err) = verb('drain', '--deadline', '0.2');
is($exit, 1, 'drain with a deadline that is too short');
like($err, qr/left at the deadline; it goes on draining/, 'says so');
is($out, "drained: 1 calls left\n", 'and what is left');
refused($m->call('hd-2._ping', {}, at => 'hd-2'), 'it goes on');
my $waits = aside_verb('drain', '--deadline', '600');
is((verb('undrain'))[0], 0, 'taken back by another one');
my $said = $waits->();
is($said->[0], 1, 'who waited hears of it');
like($said->[2], qr/undrained by another call/, 'in words');

# A stop ends it, and answers who waits
$waits = aside_verb('drain', '--deadline', '600');
($exit, $out, $err) = verb('stop', '--deadline', '0.2');
is($exit, 1, 'a stop with a deadline while it drains');
like("$out$err", qr/calls were left at the deadline/, 'says that calls were left');
is($waits->()->[0], 1, 'who waited is answered');
is($never->()->{error}{code}, -32004, 'the call that was left is refused');
is($d->wait_exit(20), 0, 'it is gone');

# TERM after a drain waits as long as without one
$m->start_one('hd-2');
$d = $m->{'hd-2'};
ok(wait_until(sub { $m->ping->{result} }, 30), 'it is back');
$slow = aside_call('slow');
$drain = aside_verb('drain');
$d->signal('TERM');
ok($slow->()->{result}, 'TERM: the call in flight gets its answer');
is($drain->()->[0], 0, 'TERM: who waited for that is told');
is($d->wait_exit(20), 0, 'TERM: it ends');
hyper_done();
